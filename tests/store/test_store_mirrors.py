"""Who holds which mirror: told, asked, answered, left; the dead do not count, and recall is kept to a hundred."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from evervec.store import datasets, mirrors
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.mirrors import MirrorHolder, MirrorProgress
from evervec.store.schema.embeddables import MESSAGE
from tests.store.planting import embed_all, plant

HERE = MirrorHolder(UUID(int=7), "host", "/folder", 4711)
LONG_AGO = "UPDATE mirrors SET seen_at = now() - interval '16 seconds'"


def told(dataset: DatasetRef, watermark: str | None = None, *, state: str = "ready") -> MirrorProgress:
    """Make the report of a mirror with three vectors."""
    return MirrorProgress(dataset.id, dataset.space_id, state, "because", 3, 4096, watermark)


async def say(database: Database, *mirrors_: MirrorProgress, holder: MirrorHolder = HERE) -> dict[UUID, str]:
    async with database.transaction() as tx:
        return await mirrors.report(tx, holder, list(mirrors_))


async def held(database: Database, *of: DatasetRef) -> list[mirrors.LiveMirror]:
    async with database.read() as tx:
        return await mirrors.live(tx, [dataset.id for dataset in of])


async def ask(database: Database, dataset: DatasetRef, what: str = "check", folder: str = "/folder") -> list[UUID]:
    async with database.transaction() as tx:
        return await mirrors.request(tx, "host", folder, [dataset.id], what)


async def unanswered(database: Database, folder: str = "/folder") -> int:
    async with database.read() as tx:
        return await mirrors.open_requests(tx, "host", folder)


async def mark(database: Database) -> str:
    """Return the watermark of a mirror that is up to date."""
    async with database.read() as tx:
        return str(await changes.watermark(tx))


@pytest.fixture
async def second(database: Database) -> DatasetRef:
    """Make another dataset."""
    async with database.transaction() as tx:
        return await datasets.ensure(tx, "sea", "notes")


async def test_what_a_holder_says_is_what_is_held(database: Database, dataset: DatasetRef, second: DatasetRef) -> None:
    await say(database, told(dataset, "5:5:"), told(second, state="building"))
    one, other = sorted(await held(database, dataset, second), key=lambda found: found.dataset_id != dataset.id)
    assert (one.host, one.folder, one.pid, one.state, one.reason) == ("host", "/folder", 4711, "ready", "because")
    assert (one.vectors, one.bytes, one.watermark) == (3, 4096, "5:5:")
    assert (one.in_sync, one.checked_at, one.missing, one.extra, one.stale) == (None, None, 0, 0, 0)
    assert (other.state, other.watermark, other.behind_ms) == ("building", None, 0)


async def test_what_is_told_again_replaces_and_what_is_told_no_more_is_gone(
    database: Database, dataset: DatasetRef, second: DatasetRef
) -> None:
    await say(database, told(dataset), told(second))
    await say(database, replace(told(second), vectors=9))
    [left] = await held(database, dataset, second)
    assert (left.dataset_id, left.vectors) == (second.id, 9)
    await say(database)
    assert await held(database, dataset, second) == []


async def test_one_holder_does_not_speak_for_another(database: Database, dataset: DatasetRef) -> None:
    other = MirrorHolder(uuid4(), "host", "/elsewhere", 4712)
    await say(database, told(dataset))
    await say(database, told(dataset), holder=other)
    async with database.transaction() as tx:
        await mirrors.remove_holder(tx, HERE)
    assert [found.folder for found in await held(database, dataset)] == ["/elsewhere"]


async def test_a_dataset_that_is_gone_can_not_be_told_of(database: Database, dataset: DatasetRef, psql: Any) -> None:
    await say(database, told(dataset))
    await psql.execute("DELETE FROM datasets")
    assert await say(database, told(dataset)) == {}
    assert await held(database, dataset) == []


async def test_a_check_is_kept_with_what_it_found(database: Database, dataset: DatasetRef) -> None:
    await say(database, told(dataset))
    for missing, in_sync in ((2, False), (0, True)):
        async with database.transaction() as tx:
            await mirrors.record_check(
                tx, HERE, dataset.id, dataset.space_id, missing=missing, extra=0, stale=0, answer=False
            )
        [found] = await held(database, dataset)
        assert (found.missing, found.extra, found.stale, found.in_sync) == (missing, 0, 0, in_sync)
        assert found.checked_at is not None


@pytest.mark.parametrize("what", ["check", "rebuild", "compact"])
async def test_a_question_stays_until_it_is_answered(database: Database, dataset: DatasetRef, what: str) -> None:
    assert await ask(database, dataset, what) == []
    assert await say(database, told(dataset)) == {}
    assert await ask(database, dataset, what) == [dataset.id]
    for _ in range(2):
        assert await say(database, told(dataset)) == {(dataset.id, dataset.space_id): what}
    async with database.transaction() as tx:
        await mirrors.record_check(tx, HERE, dataset.id, dataset.space_id, missing=0, extra=0, stale=0, answer=False)
    assert await unanswered(database) == 1, "a check that was due anyway is no answer"
    async with database.transaction() as tx:
        await mirrors.record_check(tx, HERE, dataset.id, dataset.space_id, missing=0, extra=0, stale=0, answer=True)
    assert await unanswered(database) == 0
    assert await say(database, told(dataset)) == {}
    assert await ask(database, dataset, what) == [dataset.id]
    assert await unanswered(database) == 1


async def test_only_holders_of_that_folder_are_asked(database: Database, dataset: DatasetRef) -> None:
    await say(database, told(dataset))
    assert await ask(database, dataset, folder="/elsewhere") == []
    assert await unanswered(database, "/elsewhere") == 0
    assert await say(database, told(dataset)) == {}


async def test_the_dead_are_not_asked_not_waited_for_and_not_shown(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await say(database, told(dataset, "5:5:"))
    await ask(database, dataset)
    await psql.execute(LONG_AGO)
    assert await ask(database, dataset) == []
    assert await unanswered(database) == 0
    assert await held(database, dataset) == []
    async with database.read() as tx:
        assert await mirrors.lowest_watermark(tx, dataset.id) is None


async def test_the_long_dead_are_forgotten_by_whoever_speaks_next(
    database: Database, dataset: DatasetRef, psql: Any
) -> None:
    await say(database, told(dataset), holder=MirrorHolder(uuid4(), "gone", "/folder", 1))
    await psql.execute("UPDATE mirrors SET seen_at = now() - interval '25 hours'")
    await say(database, told(dataset))
    assert [row["host"] for row in await psql.fetch("SELECT host FROM mirrors")] == ["host"]


async def test_a_mirror_is_behind_only_while_something_of_its_dataset_was_not_seen(
    database: Database, dataset: DatasetRef, second: DatasetRef, psql: Any
) -> None:
    await plant(psql, MESSAGE, dataset.id, "one")
    await embed_all(psql)
    await say(database, told(dataset, await mark(database)))
    await plant(psql, MESSAGE, second.id, "of another dataset")
    await embed_all(psql)
    assert [found.behind_ms for found in await held(database, dataset)] == [0]
    await psql.execute("DELETE FROM messages WHERE dataset_id = $1", dataset.id)
    await psql.execute("UPDATE mirrors SET watermark_at = now() - interval '3 seconds'")
    [late] = await held(database, dataset)
    assert late.behind_ms >= 3000
    await say(database, told(dataset, await mark(database)))
    assert [found.behind_ms for found in await held(database, dataset)] == [0]


async def test_the_lowest_watermark_is_that_of_the_slowest(database: Database, dataset: DatasetRef) -> None:
    for number, watermark in enumerate(("90:95:91", "100:100:", None)):
        await say(database, told(dataset, watermark), holder=MirrorHolder(UUID(int=number), "h", "/f", 1))
    async with database.read() as tx:
        assert await mirrors.lowest_watermark(tx, dataset.id) == "90:95:91"


async def test_a_hundred_measurements_of_an_engine_are_kept_and_the_newest_is_told(
    database: Database, dataset: DatasetRef, second: DatasetRef, psql: Any
) -> None:
    async with database.transaction() as tx:
        await mirrors.record_recall(tx, dataset.id, "pgvector", 0.5, 0.9, 30)
        await mirrors.record_recall(tx, second.id, "mirror", 0.25, 0.9, 30)
        for number in range(105):
            await mirrors.record_recall(tx, dataset.id, "mirror", number / 128, 0.9, 30)
    async with database.read() as tx:
        found = {recall.engine: recall.recall for recall in await mirrors.recalls(tx, dataset.id)}
    assert found == {"mirror": 104 / 128, "pgvector": 0.5}
    counted = await psql.fetch("SELECT dataset_id, engine, count(*) FROM recall_checks GROUP BY 1, 2")
    assert {(row[0], row[1]): row[2] for row in counted} == {
        (dataset.id, "mirror"): 100,
        (dataset.id, "pgvector"): 1,
        (second.id, "mirror"): 1,
    }
