"""Attaches a table as the pipeline does, without it: the source's row, triggers, and what they recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from evervec.domain.attachment import AttachedTable, Key
from evervec.sources.attached.description import Attachment, describe
from evervec.store import datasets, sources
from evervec.store.attached import capture, changes, problems, rows, shape, views
from evervec.store.attached.rows import AttachedRow
from evervec.store.database.session import Database, Tx

MOST_BYTES = 1 << 20


@dataclass
class Attached:
    """An attached table; `recorded` empties its records."""

    database: Database
    source_id: UUID
    table: AttachedTable
    last: list[Key] = field(default_factory=list)

    async def recorded(self) -> set[Key]:
        """Return the keys that were recorded since the last call; `()` stands for all rows."""
        async with self.database.read() as tx:
            taken = await changes.take(tx, self.source_id, 100_000)
        async with self.database.transaction() as tx:
            assert await changes.forget(tx, self.source_id, taken) == len(taken.records)
        return {*taken.keys, *([()] if taken.everything else [])}

    async def read(self, *keys: Key) -> dict[Key, AttachedRow]:
        """Return rows by key."""
        async with self.database.read() as tx:
            found = await rows.read(tx, self.table, keys, most_bytes=MOST_BYTES, together_bytes=10 * MOST_BYTES)
        assert not found.unread
        return dict(found.rows)

    async def walked(self, size: int = 2, *, newest_first: bool = False) -> list[Key]:
        """Return all keys, read in pieces."""
        found: list[Key] = []
        while True:
            async with self.database.read() as tx:
                after = found[-1] if found else None
                piece = await rows.keys_after(tx, self.table, after, size, newest_first=newest_first)
            if not piece:
                return found
            found += piece

    async def problems(self) -> Sequence[str]:
        """Return what is wrong, as status says it."""
        async with self.database.read() as tx:
            found = await problems.state(tx, self.database.schema, self.source_id, self.table)
        return [f"{one.what} {one.problem}" for one in found.problems]

    async def detach(self) -> None:
        """Take the triggers away."""
        await capture.remove(self.database, self.source_id, self.table, _nothing)


async def _nothing(tx: Tx) -> None:
    """Do nothing beside the triggers."""


async def attach(database: Database, table: str, text: str | None = "title", **more: Any) -> Attached:
    """Attach a table to the dataset `app/articles`."""
    belongs = {} if "dataset_column" in more else {"dataset": "articles"}
    described = describe(table=table, text=text, project="app", **belongs, **more)
    found = await shape.probe(database, described)
    attachment = Attachment(description=described, table=found.table)
    async with database.transaction() as tx:
        project = await datasets.ensure_project(tx, "app")
        record = await sources.save(tx, project, table, "attached", attachment.dump())
    await capture.install(database, record.id, found.table, _nothing)
    return Attached(database, record.id, Attachment.load(record.spec).table)


async def shown(database: Database, attached: Attached, name: str = "articles") -> str:
    """Make the view of an attachment to the dataset `app/articles`."""
    async with database.transaction() as tx:
        target = await datasets.ensure(tx, "app", "articles")
        await sources.assign(tx, target.id, attached.source_id)
        wanted = list(views.names("app", name, attached.source_id))
        return await views.make(tx, database.schema, attached.source_id, attached.table, wanted, target.id)
