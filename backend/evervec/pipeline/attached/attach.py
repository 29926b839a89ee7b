"""A table is attached: looked at, registered with its dataset, and captured, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from uuid import UUID

from evervec.domain.attachment import AttachedTable
from evervec.domain.naming import slug
from evervec.domain.sources import SourceType
from evervec.errors import Refused
from evervec.pipeline.attached import elsewhere
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.captures import opening, polled
from evervec.pipeline.resources import Resources
from evervec.sources.attached import records
from evervec.sources.attached.description import Attachment, AttachmentDescription
from evervec.store import datasets, sources
from evervec.store.attached import adoption as adopting
from evervec.store.attached import attachments, capture, shape, views
from evervec.store.attached import documents as attached_documents
from evervec.store.attached.adoption import Adoption
from evervec.store.attached.keys import FORMS
from evervec.store.attached.shape import Shape
from evervec.store.captures import installing, slots
from evervec.store.captures.other_database import OtherDatabase
from evervec.store.database.session import Database, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.sources import SourceRecord

TABLE_LOCK_SECONDS = 30.0
"""Longest wait for the table while others have it locked; writers wait for a moment at a time at most."""


@dataclass(frozen=True)
class AttachOptions:
    """How existing rows are taken in, with which vectors of their own, and whether another attachment is replaced."""

    newest_first: bool = False
    rows_per_second: float | None = None
    replace: bool = False
    adoption: Adoption | None = None


class _ChangedMeanwhile(Exception):
    """Somebody else has attached, replaced or detached the table since it was looked up."""


@dataclass(frozen=True)
class _Request:
    """A table that is to be attached: what was found of it, and the attachment that it has already, if any.

    `there` is its database, None for ours.
    """

    resources: Resources
    described: AttachmentDescription
    found: Shape
    options: AttachOptions
    source_id: UUID
    stored: SourceRecord | None
    there: OtherDatabase | None

    @property
    def database(self) -> Database:
        """Return the database of the table."""
        return self.there or self.resources.database

    @property
    def is_new(self) -> bool:
        """Return whether the table is not attached yet."""
        return self.stored is None


@dataclass(frozen=True)
class Attached:
    """What became of a request: `state` is `attached`, `replaced`, `unchanged`, or `planned` for a dry run.

    `rows` is the planner's estimate, 0 before an ANALYZE, `reads` are the columns whose changes count, `view` is what SQL reads, `seconds` how
    long it took until the table's writers could go on.
    """

    id: UUID | None
    table: str
    project: str
    dataset: str | None
    dataset_column: str | None
    state: str
    rows: int
    key: list[str]
    reads: list[str]
    view: str | None
    seconds: float
    warnings: list[str]


async def attach(
    resources: Resources, described: AttachmentDescription, options: AttachOptions, *, dry: bool = False
) -> Attached:
    """Attach a table: from the commit on, every change of a row is recorded by the transaction that makes it.

    Rows that are there already are taken in by workers afterwards. Nothing changes if it is attached in the same way.

    Raises `SourceError` for a table or an expression that can not be used, `Refused` for a dataset that holds something
    else or an attachment of another description, `TableBusyError` if the table stays locked, and what another database
    raises.
    """
    started = perf_counter()
    there = await elsewhere.opened(resources, described)
    found = await shape.probe(there or resources.database, described, elsewhere=there is not None)
    stored = await _stored(resources, described, found.table, there)
    _check(described, stored, options)
    if stored is not None and _is_same(stored, described, found.table):
        if there is not None and not dry:
            await elsewhere.renew(resources, stored, described, there, seconds=TABLE_LOCK_SECONDS)
        view = await _view(resources, described, stored, make=not dry)
        done = _attached("unchanged", described, found, stored.id, view, started)
    elif dry:
        return _attached("planned", described, found, None, None, started)
    else:
        source_id = await elsewhere.new_id(resources, described, found.table, there) if stored is None else stored.id
        try:
            view = await _capture(_Request(resources, described, found, options, source_id, stored, there))
        except _ChangedMeanwhile:
            return await attach(resources, described, options)
        done = _attached("attached" if stored is None else "replaced", described, found, source_id, view, started)
    return done if there is not None else await _warned(resources, done, found.table)


async def _capture(request: _Request) -> str:
    """Register a table, and have its changes noticed from then on; return its view. Raises `_ChangedMeanwhile`."""
    resources, source_id, table, there = request.resources, request.source_id, request.found.table, request.there
    register = partial(_register, request=request, begin=await _begin(request))
    if request.described.capture == "poll":
        async with resources.database.transaction() as tx:
            return await register(tx)
    if request.described.capture == "logical":
        return await elsewhere.attach_decoded(
            resources, request.database, source_id, table, register, is_new=request.is_new
        )
    if there is None:
        return await capture.install(resources.database, source_id, table, register, seconds=TABLE_LOCK_SECONDS)
    return await elsewhere.attach_captured(
        resources, there, source_id, table, register, is_new=request.is_new, seconds=TABLE_LOCK_SECONDS
    )


async def _warned(resources: Resources, done: Attached, table: AttachedTable) -> Attached:
    """Warn of a view that has the table's name and is found before it."""
    async with resources.database.read(own_names=False) as tx:
        remedy = await views.hides(tx, resources.database.schema, table)
    if remedy is None:
        return done
    said = (
        f"To this role {table.name} without a schema is {done.view} now, and not {table.label}. Write the schema, or run: "
        f"{remedy};"
    )
    return replace(done, warnings=[*done.warnings, said])


async def _begin(request: _Request) -> dict[str, object]:
    """Return what is kept of the table as it is now: later changes are told from that."""
    described, table = request.described, request.found.table
    async with request.database.read() as tx:
        begin: dict[str, object] = {attachments.PARTS: await capture.parts(tx, table)}
        if described.capture == "poll":
            begin |= await polled.first_position(tx, table, opening.poll_column(described, table))
    return begin


async def statements(resources: Resources, described: AttachmentDescription) -> list[str]:
    """Return what an administrator of another database would run there so that a table of it can be attached."""
    there = await elsewhere.opened(resources, described)
    if there is None:
        raise Refused(reason="--print-sql is for a database that is not ours: give its --url.")
    if described.capture == "poll":
        raise Refused(reason="--capture poll makes nothing in the table's database, so there is no SQL to print.")
    found = await shape.probe(there, described, elsewhere=True)
    stored = await _stored(resources, described, found.table, there)
    source_id = await elsewhere.new_id(resources, described, found.table, there) if stored is None else stored.id
    if described.capture == "logical":
        return [slots.publication(source_id, found.table), slots.creation(source_id)]
    return await installing.planned(there, source_id, found.table)


async def _stored(
    resources: Resources, described: AttachmentDescription, table: AttachedTable, there: OtherDatabase | None
) -> SourceRecord | None:
    """Return the attachment of this table in the project, also one that was made under another name of the table."""
    project = slug("Project", described.project)
    async with resources.database.read() as tx:
        found = await sources.of_type(tx, SourceType.ATTACHED, project=project)
    known = [one for one in found if (one.url_encrypted is None) == (there is None)]
    where = None if there is None else there.where
    for one in known:
        attachment = Attachment.load(one.spec)
        if (attachment.where, attachment.table.oid) == (where, table.oid):
            return one
    if there is not None:
        # its address may be another one by now, or it was restored: its triggers are there all the same
        async with there.read() as tx:
            for one in known:
                if any(row["oid"] == table.oid for row in await capture.present(tx, there.schema, one.id)):
                    return one
    return next((one for one in known if one.name == elsewhere.name_of(table, where)), None)


def _check(described: AttachmentDescription, stored: SourceRecord | None, options: AttachOptions) -> None:
    if stored is None:
        return
    before = Attachment.load(stored.spec).description
    differs = [
        f"--{name.replace('_', '-')}"
        for name in type(described).model_fields
        if name not in ("table", "url") and getattr(before, name) != getattr(described, name)
    ]
    if not differs:
        return
    if {"--dataset", "--dataset-column", "--dataset-name"} & set(differs):
        raise Refused(
            reason=f"Table {described.table} is attached to another dataset ({_where(before)}). Run `evervec detach "
            f"{described.table}` first, or give the same one."
        )
    fixed = {"--capture", "--key", "--outbox"} & set(differs)
    if fixed:
        raise Refused(
            reason=f"Table {described.table} is attached with another {', '.join(sorted(fixed))}. Run `evervec detach "
            f"{described.table}` first."
        )
    if not options.replace:
        raise Refused(
            reason=f"Table {described.table} is attached already, with another {', '.join(differs)}. Give --replace to read "
            f"all its rows again in the new way: what stays the same is not embedded again."
        )


def _where(described: AttachmentDescription) -> str:
    column = described.dataset_column
    return f"{described.project}/{described.dataset if column is None else f'{{{column}}}'}"


async def _view(
    resources: Resources, described: AttachmentDescription, stored: SourceRecord, *, make: bool
) -> str | None:
    """Return the view of an attachment; if it was dropped, make it or return None."""
    schema = resources.database.schema
    async with resources.database.read() as tx:
        found = await views.place(tx, schema, stored.view)
    if found is not None or not make:
        return found
    async with resources.database.transaction() as tx:
        filled = await sources.filled(tx, stored.id)
        dataset_id = None if described.dataset is None else filled[None].id
        return await _show(tx, schema, described, Attachment.load(stored.spec).table, stored.id, dataset_id)


async def _show(
    tx: Tx,
    schema: str,
    described: AttachmentDescription,
    table: AttachedTable,
    source_id: UUID,
    dataset_id: UUID | None,
) -> str:
    """Make the view of an attachment, named as its dataset, or as the table if it fills several."""
    name = table.name if described.dataset is None else slug("Dataset", described.dataset)
    if described.url is not None:
        # an enum of another database does not exist here
        key = [one if one.type in FORMS else replace(one, type="text") for one in table.key]
        table = replace(table, key=tuple(key))
    wanted = list(views.names(slug("Project", described.project), name, source_id))
    return await views.make(tx, schema, source_id, table, wanted, dataset_id)


def _is_same(stored: SourceRecord, described: AttachmentDescription, table: AttachedTable) -> bool:
    before = Attachment.load(stored.spec)
    return (
        before.description.model_copy(update={"table": described.table, "url": described.url}) == described
        and before.table.oid == table.oid
    )


async def _register(tx: Tx, *, request: _Request, begin: Mapping[str, object]) -> str:
    """Save the source, its dataset and its view; return the view's name. Raises `_ChangedMeanwhile`."""
    resources, described, found, stored = request.resources, request.described, request.found, request.stored
    where = None if request.there is None else request.there.where
    table = found.table
    before_progress = Progress() if stored is None else Progress.load(stored.cursor)
    if stored is not None:
        if not await attachments.keep(tx, stored.id, before_progress.generation):
            raise _ChangedMeanwhile
        # documents keep the name under which the table was attached first
        before = Attachment.load(stored.spec).table
        table = replace(table, schema=before.schema, name=before.name)
    target = None if described.dataset is None else await _target(tx, described, table, is_new=stored is None)
    record = await sources.save(
        tx,
        await datasets.ensure_project(tx, described.project) if target is None else target.project_id,
        elsewhere.name_of(table, where) if stored is None else stored.name,
        SourceType.ATTACHED,
        Attachment(description=described, table=table, where=where).dump(),
        url_encrypted=elsewhere.sealed(resources, described),
        source_id=request.source_id,
    )
    if record.id != request.source_id:
        raise _ChangedMeanwhile
    if target is not None:
        await sources.assign(tx, target.id, record.id)
    progress = replace(
        before_progress.again(found.rows, compare=stored is not None),
        newest_first=request.options.newest_first,
        rows_per_second=request.options.rows_per_second,
        error=None,
        generation=before_progress.generation + 1,
    )
    await attachments.merge_cursor(tx, record.id, progress.dump() | dict(begin))
    await adopting.save(tx, record.id, request.options.adoption)
    dataset_id = None if target is None else target.id
    return await _show(tx, resources.database.schema, described, table, record.id, dataset_id)


async def _target(tx: Tx, described: AttachmentDescription, table: AttachedTable, *, is_new: bool) -> DatasetRef:
    """Return the dataset of all rows, made if it is not there. Raises `Refused` if it holds something else."""
    assert described.dataset is not None  # rows of several datasets have theirs made when they are taken in
    target = await datasets.ensure(tx, described.project, described.dataset)
    prefix = None if is_new else f"{records.uri_of(table, ())}/"
    if await attached_documents.holds_others(tx, target.id, prefix):
        raise Refused(
            reason=f"Dataset {target.project}/{target.slug} holds something else, or the rest of what is just being "
            "removed. Give the table a dataset of its own."
        )
    return target


def _attached(
    state: str,
    described: AttachmentDescription,
    found: Shape,
    source_id: UUID | None,
    view: str | None,
    started: float,
) -> Attached:
    return Attached(
        id=source_id,
        table=found.table.label,
        project=slug("Project", described.project),
        dataset=None if described.dataset is None else slug("Dataset", described.dataset),
        dataset_column=described.dataset_column,
        state=state,
        rows=found.rows,
        key=[column.name for column in found.table.key],
        reads=[column.name for column in found.table.reads],
        view=view,
        seconds=perf_counter() - started,
        warnings=list(found.warnings),
    )
