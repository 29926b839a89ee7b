"""Failed rows and messages: made pending again, or left alone for good."""

from dataclasses import dataclass

from evervec.errors import Refused
from evervec.store import datasets, messages
from evervec.store.embeddings import rows
from evervec.store.schema.embeddables import BY_NAME
from evervec.store.session import Database

EXTRACTION = "extraction"
_MOST = 2**63 - 1


@dataclass(frozen=True)
class FailureId:
    """The name of one failure. `kind` None stands for the scoring or extraction of the message with that id."""

    kind: int | None
    id: int


def parse_failure_id(text: str | None) -> FailureId | None:
    """Parse a name such as `message:17`; None, for all failures, stays None. Raises `Refused`."""
    if text is None:
        return None
    kind, _, number = text.partition(":")
    valid = number.isascii() and number.isdecimal() and len(number) < 20 and int(number) <= _MOST
    if not valid or kind not in (*BY_NAME, EXTRACTION):
        kinds = ", ".join((*BY_NAME, EXTRACTION))
        raise Refused(
            reason=f"{text!r} does not name a failure. Give KIND:ID as `evervec failed list` shows it, for example "
            f"message:17. Kinds: {kinds}."
        )
    return FailureId(BY_NAME[kind].kind if kind in BY_NAME else None, int(number))


async def retry(database: Database, *, dataset: str | None = None, one: FailureId | None = None) -> int:
    """Make failed rows pending again, and failed messages extractable; return how many."""
    async with database.transaction() as tx:
        ids = [d.id for d in await datasets.find(tx, dataset)]
        reopened = 0
        if one is None or one.kind is not None:
            reopened += await rows.retry(tx, ids, row=_row(one))
        if one is None or one.kind is None:
            reopened += await messages.retry(tx, ids, message_id=one.id if one else None)
        return reopened


async def discard(database: Database, *, dataset: str | None = None, one: FailureId | None = None) -> int:
    """Count failed rows as empty until their text changes; return how many. Raises `Refused` for an extraction."""
    if one is not None and one.kind is None:
        raise Refused(
            reason="A message whose extraction failed is not tried again until it is edited, so there is nothing to discard."
        )
    async with database.transaction() as tx:
        return await rows.discard(tx, [d.id for d in await datasets.find(tx, dataset)], row=_row(one))


def _row(one: FailureId | None) -> tuple[int, int] | None:
    return None if one is None or one.kind is None else (one.kind, one.id)
