"""The manifest beside a mirror's file: the two generations of it that are acceptable, as JSON with a checksum."""

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import orjson
import xxhash

from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.errors import MirrorFileError
from evervec.mirror.segment import Tuning

MANIFEST_FORMAT = 1
MOST_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class FileLayout:
    """The layout of a segment's file, byte for byte.

    `token` (32 hexadecimal digits) is in its footer and new with every file; `checksum` is XXH3-128 of all `bytes`. The
    FAISS index is its first `blob` bytes; `ids`, `versions` and `kinds` are the offsets of the arrays, in bytes.
    """

    token: str
    checksum: str
    bytes: int
    blob: int
    ids: int
    versions: int
    kinds: int


@dataclass(frozen=True)
class Generation:
    """One published state of a mirror: n vectors in one file. `written_at` is the time by the writer's clock.

    `reread` are vector ids in which the file differs from its database in a way that the change feed does not tell.
    """

    number: int
    n: int
    container: FileLayout
    factory: str
    tuning: Tuning
    identity: DatabaseIdentity
    watermark: Watermark
    faiss: str
    written_at: str | None = None
    reread: tuple[int, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The manifest of a mirror: its file is `current` or, if a writer died before its last step, still `previous`."""

    project_id: UUID
    dataset_id: UUID
    current: Generation
    previous: Generation | None = None

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Return the acceptable generations, the newest first."""
        return (self.current, self.previous) if self.previous else (self.current,)


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as JSON. Raises `ValueError` for what can not be read back (a recall that is not a number)."""
    document = {
        "format": MANIFEST_FORMAT,
        "project_id": str(manifest.project_id),
        "dataset_id": str(manifest.dataset_id),
        "current": _plain(manifest.current),
        "previous": _plain(manifest.previous) if manifest.previous else None,
    }
    data = _sealed(document)
    if len(data) > MOST_MANIFEST_BYTES or decode(data) != manifest:
        raise ValueError(f"a manifest that can not be read back: {manifest}")
    return data


def decode(data: bytes) -> Manifest:
    """Read a manifest from JSON. Raises `MirrorFileError` for anything that `encode` did not write exactly so."""
    document = _document(data)
    version = document.get("format")
    if version != MANIFEST_FORMAT:
        newer = isinstance(version, int) and version > MANIFEST_FORMAT
        raise MirrorFileError(
            reason=f"the manifest has {'the newer' if newer else 'an unknown'} format {version!r:.50}"
        )
    # Comparing the whole text also finds what JSON ignores: an additional blank, a key that comes twice.
    if _sealed({name: value for name, value in document.items() if name != "checksum"}) != data:
        raise MirrorFileError(reason="the manifest does not match its checksum")
    try:
        return _manifest(document)
    except (KeyError, TypeError, ValueError) as error:
        raise MirrorFileError(reason=f"the manifest can not be understood: {error!r:.200}") from None


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MirrorFileError(reason=f"the manifest is not JSON: {error!s:.200}") from None
    if not isinstance(document, dict):
        raise MirrorFileError(reason="the manifest is not a JSON object")
    return document


def _sealed(document: dict[str, Any]) -> bytes:
    body = orjson.dumps(document)
    sealed = {**document, "checksum": xxhash.xxh3_128_hexdigest(body)}
    return orjson.dumps(sealed, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _plain(generation: Generation) -> dict[str, Any]:
    # a manifest calls the identity of the database its life, since format 1
    plain = {"life" if name == "identity" else name: value for name, value in asdict(generation).items()}
    if not generation.reread:  # versions that do not know it can read the file
        del plain["reread"]
    return plain | {"watermark": str(generation.watermark)}


def _manifest(document: dict[str, Any]) -> Manifest:
    previous = document["previous"]
    return Manifest(
        UUID(document["project_id"]),
        UUID(document["dataset_id"]),
        _generation(document["current"]),
        None if previous is None else _generation(previous),
    )


def _generation(plain: dict[str, Any]) -> Generation:
    parts = {
        "container": FileLayout(**plain["container"]),
        "tuning": Tuning(**plain["tuning"]),
        "identity": DatabaseIdentity(**plain.pop("life")),
        "watermark": Watermark.parse(plain["watermark"]),
        "reread": tuple(int(vector_id) for vector_id in plain.get("reread", ())),
    }
    return Generation(**{**plain, **parts})
