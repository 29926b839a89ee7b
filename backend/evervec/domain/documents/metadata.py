"""What a caller says of a document beside its text: names and JSON values, checked before PostgreSQL sees them."""

from collections.abc import Mapping
from typing import Any

import orjson

from evervec.domain.text import clean
from evervec.errors import Refused

MOST_METADATA_BYTES = 65_536


def checked(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON holds it: times and UUIDs become text, and a fraction that is no number becomes null.

    Raises `Refused` for what is no mapping from texts, for values that JSON does not have, and for more than 64 KiB of them.
    """
    if not isinstance(metadata, Mapping):
        raise Refused(reason=f"Metadata is a mapping of names to values, not {metadata!r:.100}.")
    try:
        written = orjson.dumps(_cleaned(dict(metadata)))
    except (TypeError, RecursionError) as error:
        raise Refused(reason=f"This metadata can not be written as JSON ({error}): {list(metadata)!r:.100}.") from None
    found: dict[str, Any] = orjson.loads(written)
    require_small(found)
    return found


def require_small(metadata: Mapping[str, Any]) -> None:
    """Raise `Refused` for metadata of more than 64 KiB as JSON."""
    size = len(orjson.dumps(metadata))
    if size > MOST_METADATA_BYTES:
        raise Refused(
            reason=f"The metadata has {size:,} bytes as JSON, {MOST_METADATA_BYTES:,} at most: put long texts into the "
            "document."
        )


def _cleaned(value: Any) -> Any:
    """Return a value whose texts PostgreSQL can store, as those of documents."""
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {clean(name) if isinstance(name, str) else name: _cleaned(one) for name, one in value.items()}
        case list() | tuple():
            return [_cleaned(one) for one in value]
        case _:
            return value
