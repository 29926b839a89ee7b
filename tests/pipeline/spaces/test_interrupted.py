"""A build, a flip or a removal whose process is killed at any step is continued, or dropped without a trace."""

import signal
from typing import Any

import pytest

from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, removal
from evervec.pipeline.spaces.build import BuildOptions, start
from evervec.settings import Settings
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.killed import run_killed, started
from tests.pipeline.spaces.spaced import built, filled, require_no_more, require_true, searched_width, settled, traces

BUILD_STEPS = [
    "evervec.store.spaces.spaces.take_in",
    "evervec.store.spaces.spaces.documents_due",
    "evervec.store.spaces.spaces.taken_in",
    "evervec.store.documents.replace_chunks",
    "evervec.store.embeddings.rows.claim_dataset",
    "evervec.store.embeddings.vectors.update_vectors_bulk",
    "evervec.store.embeddings.hnsw.build_indexes",
    "evervec.store.spaces.spaces.indexed",
]
COMMITTED = "evervec.store.rings.doorbell.PostgresDoorbell.changed"
FLIP_STEPS = [
    "evervec.store.spaces.spaces.lock",
    "evervec.store.spaces.spaces.flip",
    "evervec.store.attached.views.renew",
    COMMITTED,
]
REMOVAL_STEPS = [
    "evervec.store.spaces.space_removal.older_writers_ended",
    "evervec.store.spaces.space_removal.drop_unused",
]

INDEXING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^CREATE INDEX CONCURRENTLY'"
)


def named(step: str) -> str:
    """Return the name of a step in the name of a test."""
    return step.rpartition(".")[2]


@pytest.fixture
def settings(settings: Settings, database: Database) -> Settings:
    """Return settings that another process, too, can open."""
    return Settings(**settings.model_dump() | {"database_url": database.url, "queue": "postgres"})


@pytest.fixture(params=BUILD_STEPS, ids=named)
async def interrupted(
    request: pytest.FixtureRequest,
    resources: Resources,
    settings: Settings,
    dataset: DatasetRef,
    wide: FakeProvider,
    psql: Any,
) -> dict[str, Any]:
    """Begin a build that is killed at a step; return what was there before it."""
    await filled(resources, dataset)
    await settled(resources, dataset)
    before = await traces(psql)
    await start(resources, BuildOptions("wide"))
    await run_killed(settings, "build", request.param)
    # whoever died held leases, which end by themselves
    await psql.execute("UPDATE embed_work SET lease_until = now() - interval '1 s'")
    return before


async def test_a_build_killed_at_any_step_is_continued(
    interrupted: dict[str, Any], resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await settled(resources, dataset)
    await require_true(psql)
    await flip.activate(resources)
    assert (await search(resources, "one", k=1)).hits[0].text == "one"
    await removal.drop(resources)
    await removal.purge(resources)
    assert await psql.fetchval("SELECT array_agg(DISTINCT space_id) FROM embeddings") == [2]
    after = await traces(psql)
    # the other space has indexes of its own now, and the former one has none
    assert len(after["names"]) <= len(interrupted["names"])
    require_no_more(after | {"names": []}, interrupted)


async def test_a_build_killed_at_any_step_is_dropped_without_a_trace(
    interrupted: dict[str, Any], resources: Resources, psql: Any
) -> None:
    await removal.drop(resources)
    await removal.purge(resources)
    require_no_more(await traces(psql), interrupted)


@pytest.mark.parametrize("step", FLIP_STEPS, ids=named)
async def test_a_flip_killed_at_any_step_was_done_or_was_not(
    resources: Resources,
    settings: Settings,
    dataset: DatasetRef,
    wide: FakeProvider,
    psql: Any,
    step: str,
) -> None:
    await filled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    for work, width in (("activate", 48), ("roll back", 32)):
        await run_killed(settings, work, step)
        done = step == COMMITTED
        assert await searched_width(resources, "one") == {width if done else 80 - width}
        if not done:
            await {"activate": flip.activate, "roll back": flip.roll_back}[work](resources)
        assert await searched_width(resources, "one") == {width}
        await require_true(psql)


@pytest.mark.parametrize("step", REMOVAL_STEPS, ids=named)
async def test_a_removal_killed_at_any_step_is_continued_by_the_janitor(
    resources: Resources,
    settings: Settings,
    dataset: DatasetRef,
    wide: FakeProvider,
    psql: Any,
    step: str,
) -> None:
    await filled(resources, dataset)
    await settled(resources, dataset)
    before = await traces(psql)
    await built(resources, BuildOptions("wide"))
    await removal.drop(resources)
    await run_killed(settings, "purge", step)
    await settled(resources, dataset)
    require_no_more(await traces(psql), before)


async def test_nobody_waits_for_the_index_that_a_killed_process_was_building(
    resources: Resources, settings: Settings, dataset: DatasetRef, wide: FakeProvider, psql: Any, database: Database
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))

    async def indexing() -> bool:
        return bool(await psql.fetch(INDEXING))

    async def left() -> bool:
        return not await indexing()

    async with database.read() as tx:
        await tx.fetchval("SELECT count(*) FROM embeddings")  # CREATE INDEX CONCURRENTLY waits for those who may look
        process = await started(settings, "build")
        await eventually("an index is being built", indexing)
        process.send_signal(signal.SIGKILL)
        await eventually("the server gave it up", left)
    await settled(resources, dataset)
    await flip.activate(resources)
    assert await searched_width(resources, "one") == {48}
    assert await psql.fetchval("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'embeddings'::regclass")
