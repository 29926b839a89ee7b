"""Whoever writes rows, in whatever state the spaces of their dataset are: each space has every row as it is, and no other."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, removal
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import another, filled, page, require_true, settled, write

TEXTS = ("one", "two", "three", "four", "five", "six")


async def building(resources: Resources) -> None:
    await start(resources, BuildOptions("wide"), dataset="log")


async def built(resources: Resources) -> None:
    await building(resources)
    await fill(resources)


async def activated(resources: Resources) -> None:
    await built(resources)
    await flip.activate(resources, dataset="log")


async def rolled_back(resources: Resources) -> None:
    await activated(resources)
    await flip.roll_back(resources, dataset="log")


async def dropped(resources: Resources) -> None:
    await activated(resources)
    await removal.drop(resources, dataset="log")


async def purged(resources: Resources) -> None:
    await dropped(resources)
    await removal.purge(resources)


async def change(psql: Any, dataset: DatasetRef, other: DatasetRef) -> None:
    """Insert, edit, blank, delete and move rows, as any program does."""
    await psql.execute(
        "INSERT INTO messages (dataset_id, chat, external_id, author, content) VALUES ($1, 'telegram:1', 'new', 'dev', 'new')",
        dataset.id,
    )
    await psql.execute("UPDATE messages SET content = 'two, edited' WHERE content = 'two'")
    await psql.execute("UPDATE messages SET content = '  ' WHERE content = 'three'")
    await psql.execute("DELETE FROM messages WHERE content = 'four'")
    await psql.execute("UPDATE messages SET dataset_id = $1 WHERE content = 'five'", other.id)
    await psql.execute("UPDATE messages SET dataset_id = $1 WHERE content = 'from there'", dataset.id)
    await psql.execute("DELETE FROM documents WHERE uri = 'second'")


@pytest.mark.parametrize("state", [building, built, activated, rolled_back, dropped, purged])
async def test_rows_are_written_in_every_state(
    resources: Resources,
    dataset: DatasetRef,
    wide: FakeProvider,
    psql: Any,
    state: Callable[[Resources], Awaitable[None]],
) -> None:
    other = await another(resources)
    await filled(resources, dataset)
    await write(resources, dataset, *TEXTS)
    await write(resources, other, "from there", "stays there")
    await page(resources, dataset, "# Second\n\nAbout mountains.\n", "second")
    await settled(resources, dataset, other)
    await state(resources)
    await change(psql, dataset, other)
    await page(resources, dataset, "# Pages\n\nOne page about seas.\n")
    await settled(resources, dataset, other)
    blank = await psql.fetch(
        "SELECT content_hash FROM embeddings e JOIN messages m ON e.kind = 1 AND m.id = e.row_id AND m.content = '  '"
    )
    assert blank and {row["content_hash"] for row in blank} == {None}
    await psql.execute("DELETE FROM messages WHERE content = '  '")
    await require_true(psql)
    found = {hit.text for hit in (await search(resources, "new", k=20, kind="message", dataset="log")).hits}
    assert found == {"one", "two, edited", "six", "new", "from there"}


async def test_after_a_hundred_edits_a_rollback_finds_every_one(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await write(resources, dataset, *(f"row {n}" for n in range(100)))
    await settled(resources, dataset)
    await activated(resources)
    await psql.execute("UPDATE messages SET content = content || ', edited'")
    await settled(resources, dataset)
    await flip.roll_back(resources)
    assert (await search(resources, "row 7, edited", k=1)).hits[0].score == pytest.approx(1, abs=1e-3)
    found = (await search(resources, "row 7, edited", k=200)).hits
    assert {hit.text for hit in found} == {f"row {n}, edited" for n in range(100)}
    await require_true(psql)


async def test_a_writer_that_read_its_snapshot_before_the_build_is_waited_for(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    writer = psql.transaction(isolation="repeatable_read")
    await writer.start()
    await psql.fetchval("SELECT count(*) FROM messages")
    await building(resources)
    await fill(resources)
    async with resources.database.read() as tx:
        assert await tx.fetchval("SELECT taken_in_at FROM dataset_spaces") is None
    await psql.execute(
        "INSERT INTO messages (dataset_id, chat, external_id, author, content) VALUES ($1, 'c', 'late', 'dev', 'late')",
        dataset.id,
    )
    await writer.commit()
    await settled(resources, dataset)
    await require_true(psql)
    await flip.activate(resources)
    assert (await search(resources, "late", k=1)).hits[0].text == "late"


async def test_what_an_open_transaction_writes_to_a_dropped_space_is_removed_after_it(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any, database_url: str
) -> None:
    await filled(resources, dataset)
    await built(resources)
    writer = await asyncpg.connect(database_url)
    open_write = writer.transaction()
    await open_write.start()
    await writer.execute(
        "INSERT INTO messages (dataset_id, chat, external_id, author, content) VALUES ($1, 'c', 'late', 'dev', 'late')",
        dataset.id,
    )
    await removal.drop(resources)
    await removal.purge(resources)
    assert await psql.fetchval("SELECT state FROM dataset_spaces") == "dropped"
    await open_write.commit()
    await writer.close()
    await removal.purge(resources)
    assert await psql.fetchval("SELECT count(*) FROM dataset_spaces") == 0
    await settled(resources, dataset)
    await require_true(psql)


async def test_what_was_discarded_stays_discarded_in_another_space(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, wide: FakeProvider, psql: Any
) -> None:
    fake.always(lambda text: text == "two", Fault.NAN_500)
    await filled(resources, dataset)
    for _ in range(8):
        await psql.execute("UPDATE embed_work SET not_before = now()")
        await settled(resources, dataset)
    async with resources.database.transaction() as tx:
        assert await rows.discard(tx, [dataset.id]) == 1
    await activated(resources)
    assert "two" not in wide.texts_sent()
    assert await psql.fetchval("SELECT count(*) FROM embedding_status WHERE embedding_status = 'EMPTY'") == 1
