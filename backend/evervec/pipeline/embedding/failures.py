"""Failed rows and messages: made pending again, or left alone for good."""

from dataclasses import dataclass
from uuid import UUID

from evervec.errors import Refused
from evervec.store import datasets, messages
from evervec.store.attached import failures as attached_failures
from evervec.store.database.session import Database
from evervec.store.embeddings import rows
from evervec.store.schema.embeddables import BY_NAME

EXTRACTION, ATTACHED = "extraction", "attached"
_MOST = 2**63 - 1


@dataclass(frozen=True)
class FailureId:
    """The name of one failure: its kind of row, `extraction` for a message, or `attached` for a row of an attached table."""

    kind: str
    id: int


def parse_failure_id(text: str | None) -> FailureId | None:
    """Parse a name such as `message:17`; None, for all failures, stays None. Raises `Refused`."""
    if text is None:
        return None
    kind, _, number = text.partition(":")
    valid = number.isascii() and number.isdecimal() and len(number) < 20 and int(number) <= _MOST
    if not valid or kind not in (*BY_NAME, EXTRACTION, ATTACHED):
        kinds = ", ".join((*BY_NAME, EXTRACTION, ATTACHED))
        raise Refused(
            reason=f"{text!r} does not name a failure. Give KIND:ID as `evervec failed list` shows it, for example "
            f"message:17. Kinds: {kinds}."
        )
    return FailureId(kind, int(number))


async def retry(database: Database, *, dataset: str | None = None, one: FailureId | None = None) -> int:
    """Make failed rows pending again, failed messages extractable, read failed rows of attached tables again; return how many."""
    async with database.transaction() as tx:
        ids = [d.id for d in await datasets.find(tx, dataset)]
        reopened = 0
        if one is None or one.kind in BY_NAME:
            reopened += await rows.retry(tx, ids, row=_row(one))
        if one is None or one.kind == EXTRACTION:
            reopened += await messages.retry(tx, ids, message_id=one.id if one else None)
        if one is None or one.kind == ATTACHED:
            reopened += await attached_failures.retry(tx, _scope(dataset, ids), failure_id=one.id if one else None)
        return reopened


async def discard(database: Database, *, dataset: str | None = None, one: FailureId | None = None) -> int:
    """Count failed rows as empty until their text changes; return how many. Raises `Refused` for an extraction."""
    if one is not None and one.kind == EXTRACTION:
        raise Refused(
            reason="A message whose extraction failed is not tried again until it is edited, so there is nothing to discard."
        )
    async with database.transaction() as tx:
        ids = [d.id for d in await datasets.find(tx, dataset)]
        discarded = 0
        if one is None or one.kind in BY_NAME:
            discarded += await rows.discard(tx, ids, row=_row(one))
        if one is None or one.kind == ATTACHED:
            discarded += await attached_failures.discard(tx, _scope(dataset, ids), failure_id=one.id if one else None)
        return discarded


def _row(one: FailureId | None) -> tuple[int, int] | None:
    return None if one is None else (BY_NAME[one.kind].kind, one.id)


def _scope(dataset: str | None, ids: list[UUID]) -> list[UUID] | None:
    """Return the datasets whose failed rows are meant; None for all, also those whose dataset is not known."""
    return None if dataset is None else ids
