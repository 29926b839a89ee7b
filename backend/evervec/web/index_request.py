"""The body of a request to index a dataset, and how it is read: only as far as a body may be long."""

from typing import Annotated, Final

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, StrictInt, StrictStr

from evervec.web import bodies

MOST_IDS = 1_000_000
MOST_TABLES = 1_000
MOST_BYTES = 64 << 20
"""A body with a million UUIDs has 40 MB."""

DELTA: Final = {"changed_ids": {"orders": [17, 23], "reviews": [4]}}
EXAMPLES: Final = {
    "delta": {"summary": "Two orders and a review", "value": DELTA},
    "files": {"summary": "A file that was edited", "value": {"changed_ids": {"files": ["guide/retrying.md"]}}},
    "everything": {"summary": "Compare everything", "value": {}},
}


def _within(changed: object) -> object:
    """Count the ids before a single one is looked at."""
    if isinstance(changed, dict):
        ids = sum(len(some) for some in changed.values() if isinstance(some, list))
        if ids > MOST_IDS or len(changed) > MOST_TABLES:
            raise ValueError(
                f"{ids} ids of {len(changed)} tables are too many, {MOST_IDS} of {MOST_TABLES} at most: send them in parts, "
                "or index without changed_ids, which compares everything"
            )
    return changed


Ids = Annotated[list[StrictInt | StrictStr], FailFast()]


class IndexRequest(BaseModel):
    """What to index: the changed records by table, or everything if that is left out."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    changed_ids: Annotated[dict[str, Ids] | None, BeforeValidator(_within)] = Field(
        default=None,
        description="Keys of the records that are new, changed or gone, by table (`files` with paths for a file source). "
        f"At most {MOST_IDS} of them.",
    )


async def read(request: Request) -> IndexRequest:
    """Read the body; an empty one asks for everything. Raises `Refused` for one that is too long or invalid."""
    advice = "Send the changed ids in parts."
    return (
        await bodies.read(request, IndexRequest, most_bytes=MOST_BYTES, advice=advice, example=DELTA) or IndexRequest()
    )
