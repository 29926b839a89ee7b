"""A table of a database that is not ours is attached: its capture there, and its registration here."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID, uuid4, uuid5

from evervec.domain.attachment import AttachedTable
from evervec.domain.naming import slug
from evervec.domain.sources import SourceType
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import Attachment, AttachmentDescription
from evervec.store import sources
from evervec.store.attached import attachments
from evervec.store.captures import installing, slots
from evervec.store.captures.other_database import OtherDatabase
from evervec.store.database.session import Database, Tx
from evervec.store.sources import SourceRecord

Register = Callable[[Tx], Awaitable[str]]


class _Undone(Exception):
    """Ends a transaction of which nothing is to stay."""


async def opened(resources: Resources, described: AttachmentDescription) -> OtherDatabase | None:
    """Open the database of a description, None for ours."""
    if described.url is None:
        return None
    return await resources.others.opened(described.url.get_secret_value(), described.outbox)


async def attach_captured(
    resources: Resources,
    there: OtherDatabase,
    source_id: UUID,
    table: AttachedTable,
    register: Register,
    *,
    is_new: bool,
    seconds: float,
) -> str:
    """Capture first, register then: what is refused here is found before anything is made there."""
    await _refuse_first(resources, register)
    made = await installing.install(there, source_id, table, seconds=seconds)
    try:
        async with resources.database.transaction() as tx:
            return await register(tx)
    except BaseException:
        if made and is_new:
            await installing.remove(there, source_id, table, seconds=seconds)
        raise


async def attach_decoded(
    resources: Resources,
    database: Database,
    source_id: UUID,
    table: AttachedTable,
    register: Register,
    *,
    is_new: bool,
) -> str:
    """Make publication and slot in the table's database, and register the table; what is refused here is found before."""
    await _refuse_first(resources, register)
    made = await slots.make(database, source_id, table)
    try:
        async with resources.database.transaction() as tx:
            return await register(tx)
    except BaseException:
        if made and is_new:
            await slots.remove(database, source_id)
        raise


async def _refuse_first(resources: Resources, register: Register) -> None:
    """Register in a transaction that is undone: raise what would be refused."""
    with suppress(_Undone):
        async with resources.database.transaction() as tx:
            await register(tx)
            raise _Undone


async def new_id(
    resources: Resources, described: AttachmentDescription, table: AttachedTable, there: OtherDatabase | None
) -> UUID:
    """Return the id of a new attachment. In another database it is known before: an administrator may have used it there."""
    if there is None:
        return uuid4()
    ours = (await resources.provider()).id
    return uuid5(ours, "\n".join([slug("Project", described.project), there.where, str(table.oid), table.label]))


def name_of(table: AttachedTable, where: str | None) -> str:
    """Return the name of an attachment: its table, with the address of another database."""
    return table.label if where is None else f"{table.label} at {where}"


async def renew(
    resources: Resources,
    stored: SourceRecord,
    described: AttachmentDescription,
    there: OtherDatabase,
    *,
    seconds: float,
) -> None:
    """Keep the address that was given now, whose password may be a new one, and mend what is missing there."""
    attachment = Attachment.load(stored.spec).model_copy(update={"where": there.where})
    if described.capture == "logical":
        await slots.make(there, stored.id, attachment.table)
    if described.capture == "triggers":
        await installing.install(there, stored.id, attachment.table, seconds=seconds)
    async with resources.database.transaction() as tx:
        await sources.save(
            tx,
            stored.project_id,
            stored.name,
            SourceType.ATTACHED,
            attachment.dump(),
            url_encrypted=sealed(resources, described),
        )
        await attachments.recovered(tx, stored.id)


def sealed(resources: Resources, described: AttachmentDescription) -> bytes | None:
    """Return the address of a description as it is stored. Raises `Refused` without EVERVEC_SECRET_KEY."""
    return None if described.url is None else resources.seal(described.url.get_secret_value())
