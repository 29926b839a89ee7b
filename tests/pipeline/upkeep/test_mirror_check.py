"""What is asked of mirrors: a live holder answers itself, a file is compared as it is, and what was repaired stays repaired."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evervec.errors import Refused, UnknownDatasetError
from evervec.mirror.disk.paths import get_faiss_index_path
from evervec.pipeline.mirrors.recall import measure
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.compare import compare
from evervec.pipeline.status import mirrors as mirror_states
from evervec.pipeline.status import overview
from evervec.pipeline.status.mirrors import EngineRecalls, MirrorSummary
from evervec.pipeline.upkeep import mirror_check
from evervec.pipeline.upkeep.mirror_check import DatasetCheck, check_index_sync
from evervec.store.datasets import DatasetRef
from tests.pipeline.mirrors.test_mirrors import TEXTS, embedded, following, until_true

TURNED = """
UPDATE embeddings SET embedding = embedding - embedding - embedding
WHERE vector_id IN (SELECT vector_id FROM embeddings WHERE embedding IS NOT NULL ORDER BY vector_id LIMIT $1)
"""


@pytest.fixture
async def other(resources: Resources) -> AsyncIterator[Resources]:
    """As another process of this machine, with the same folder."""
    mirrors = Mirrors(resources.settings, resources.database)
    yield replace(resources, mirrors=mirrors)
    await mirrors.aclose()


def counts(found: list[DatasetCheck]) -> tuple[int, int, int]:
    (one,) = found
    return one.missing, one.extra, one.stale


async def until_held(resources: Resources, dataset: DatasetRef) -> None:
    async with asyncio.timeout(60):
        while not any(
            held.in_sync for held in (await mirror_check.live_holders(resources.mirrors, [dataset])).get(dataset.id, [])
        ):
            await asyncio.sleep(0.02)


async def round_the_feed(psql: Any, count: int) -> None:
    async with psql.transaction():
        await psql.execute("ALTER TABLE embeddings DISABLE TRIGGER evervec_vector_changed")
        await psql.execute(TURNED, count)
        await psql.execute("ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed")


async def test_without_a_file_everything_is_missing_until_it_is_built(
    resources: Resources, other: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    (found,) = await check_index_sync(resources, repair=False)
    assert (found.state, found.missing, found.vectors, found.repaired) == ("absent", 40, 40, "")
    assert not found.in_sync
    (found,) = await check_index_sync(resources)
    assert (found.state, found.missing, found.repaired) == ("absent", 40, "rebuild")
    (found,) = await check_index_sync(other, deep=True)
    assert (found.state, found.in_sync, found.held_by) == ("at rest", True, None)


async def test_what_differs_is_named_by_sort_and_what_is_repaired_is_on_disk(
    resources: Resources, other: Resources, dataset: DatasetRef, psql: Any
) -> None:
    rows = await embedded(resources, psql, dataset, *TEXTS)
    await mirror_check.rebuild_from_database(resources)
    await embedded(resources, psql, dataset, "one more", "and another")
    await psql.execute("DELETE FROM messages WHERE id = $1", rows[-1])
    await psql.execute(TURNED, 3)
    (found,) = await check_index_sync(other)
    assert (found.missing, found.extra, found.stale, found.repaired) == (2, 1, 3, "repair")
    assert {sort: len(ids) for sort, ids in found.examples.items()} == {"missing": 2, "extra": 1, "stale": 3}
    third = replace(resources, mirrors=Mirrors(resources.settings, resources.database))
    assert counts(await check_index_sync(third, deep=True)) == (0, 0, 0)
    await third.mirrors.aclose()


async def test_a_live_holder_is_asked_and_its_file_is_healed_too(
    resources: Resources, other: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    async with following(resources):
        await until_held(resources, dataset)
        await round_the_feed(psql, 10)
        (looked,) = await check_index_sync(other, deep=True, repair=False)
        assert (looked.stale, looked.held_by, looked.repaired) == (10, os.getpid(), "")
        (found,) = await check_index_sync(other)
        assert (found.stale, found.held_by, found.repaired, found.in_sync) == (10, os.getpid(), "repair", False)
        (again,) = await check_index_sync(other)
        assert (again.stale, again.in_sync) == (0, True)
    fresh = replace(resources, mirrors=Mirrors(resources.settings, resources.database))
    assert counts(await check_index_sync(fresh, deep=True)) == (0, 0, 0)
    await fresh.mirrors.aclose()


async def test_a_live_holder_rebuilds_and_compacts(
    resources: Resources, other: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    async with following(resources) as mirrors:
        await until_held(resources, dataset)
        await embedded(resources, psql, dataset, "one more")
        await until_true(resources, dataset)
        assert mirrors.mirror(dataset).unsaved == 1
        (built,) = await mirror_check.compact(other)
        assert (built.held_by, built.state, built.vectors, built.holds) == (os.getpid(), "ready", 41, True)
        assert mirrors.mirror(dataset).unsaved == 0


async def test_a_holder_that_died_is_not_waited_for_longer_than_it_counts_as_alive(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    me = resources.mirrors.holder
    await psql.execute(
        "INSERT INTO mirrors (holder, dataset_id, space_id, host, folder, pid, state, seen_at) "
        "SELECT gen_random_uuid(), d.id, d.space_id, $2, $3, 1, 'ready', now() - interval '13.5 seconds' FROM datasets d WHERE d.id = $1",
        dataset.id,
        me.host,
        me.folder,
    )
    (found,) = await check_index_sync(resources)
    assert (found.held_by, found.missing, found.repaired) == (None, 40, "rebuild")


async def test_a_flipped_bit_is_set_aside_with_its_reason_and_built_anew(
    resources: Resources, other: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    await mirror_check.rebuild_from_database(resources)
    path = get_faiss_index_path(resources.settings.mirrors, dataset.project_id, dataset.id)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    (found,) = await check_index_sync(other, repair=False)
    assert (found.state, found.missing) == ("set aside", 40)
    (status,) = await mirror_states.mirror_status(other)
    assert status.state == "set aside"
    assert status.reason == found.reason != ""
    await check_index_sync(other)
    (status,) = await mirror_states.mirror_status(other)
    assert (status.state, status.reason) == ("at rest", "")


async def test_a_folder_that_takes_no_file_is_told_and_nothing_counts_as_repaired(
    resources: Resources, dataset: DatasetRef, psql: Any, tmp_path: Path
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    (tmp_path / "file").write_text("")
    settings = resources.settings.model_copy(update={"faiss_dir": tmp_path / "file" / "faiss"})
    nowhere = replace(resources, settings=settings, mirrors=Mirrors(settings, resources.database))
    (found,) = await check_index_sync(nowhere)
    assert found.repaired == "" and found.reason.startswith("in memory only: ") and not found.in_sync
    (built,) = await mirror_check.rebuild_from_database(nowhere)
    assert not built.holds and "EVERVEC_FAISS_DIR" in built.reason
    await nowhere.mirrors.aclose()


async def test_compacting_what_lacks_nothing_does_nothing(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    (first,) = await mirror_check.compact(resources)
    (second,) = await mirror_check.compact(resources)
    assert (first.built, second.built, first.holds, second.holds) == (True, False, True, True)
    assert second.index == "SQfp16"


async def test_an_unknown_index_and_an_unknown_dataset_are_refused(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    settings = resources.settings.model_copy(update={"mirror_index": "Nonsense17"})
    wrong = replace(resources, settings=settings, mirrors=Mirrors(settings, resources.database))
    with pytest.raises(Refused, match="EVERVEC_MIRROR_INDEX"):
        await mirror_check.rebuild_from_database(wrong)
    await wrong.mirrors.aclose()
    with pytest.raises(UnknownDatasetError):
        await check_index_sync(resources, dataset="nowhere")
    with pytest.raises(UnknownDatasetError):
        await mirror_states.mirror_status(resources, dataset="nowhere")


async def test_the_whole_standing_of_a_mirror(
    resources: Resources, other: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    await mirror_check.rebuild_from_database(resources)
    (rests,) = await mirror_states.mirror_status(other)
    assert (rests.state, rests.vectors, rests.index, rests.bytes_memory) == ("at rest", 40, "SQfp16", 0)
    path = get_faiss_index_path(resources.settings.mirrors, dataset.project_id, dataset.id)
    assert (rests.path, rests.bytes_disk) == (str(path), path.stat().st_size)
    assert (rests.recall_target, rests.recall) == (0.98, EngineRecalls(mirror=None, pgvector=None))
    await resources.mirrors.aclose()
    async with following(resources) as mirrors:
        await until_held(resources, dataset)
        await measure(resources.database, mirrors.mirror(dataset))
        (live,) = await mirror_states.mirror_status(other)
    assert (live.state, live.in_sync, live.lag_ms) == ("ready", True, 0)
    assert [(held.pid, held.here) for held in live.holders] == [(os.getpid(), True)]
    assert live.bytes_memory > 0 and live.recall.mirror is not None and live.recall.mirror.recall == 1.0
    assert vars(live.recall.mirror).keys() == {"recall", "target", "sampled", "measured_at"}


async def test_both_engines_find_the_same(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await embedded(resources, psql, dataset, *TEXTS)
    await mirror_check.rebuild_from_database(resources)
    compared = await compare(resources, TEXTS[7], k=5, rounds=2)
    assert compared.same and compared.mirror[0].text == TEXTS[7]
    assert min(compared.mirror_ms, compared.pgvector_ms) > 0
    await psql.execute(TURNED, 8)  # the mirror of this process does not follow, but reads the feed
    assert (await compare(resources, TEXTS[7], k=5, rounds=1)).same


async def test_status_shows_each_mirror_in_short(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    async def mirror() -> MirrorSummary:
        (one,) = (await overview.status(resources)).datasets
        return one.mirror

    await embedded(resources, psql, dataset, *TEXTS)
    unmeasured = MirrorSummary(state="absent", vectors=0, lag_ms=None, in_sync=None, checked_at=None)
    assert await mirror() == unmeasured
    async with following(resources):
        await until_held(resources, dataset)
        found = await mirror()
    assert (found.state, found.vectors, found.lag_ms, found.in_sync) == ("ready", 40, 0, True)
    assert found.checked_at is not None
    assert await mirror() == replace(unmeasured, state="at rest", vectors=40)
