"""A mirror of another history of its database is compared number by number, repaired and kept; what is not known is not searched."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evervec.domain.feed import FeedVectors, Ids, Watermark
from evervec.mirror.build import build
from evervec.mirror.disk.folder import MirrorFolder
from evervec.pipeline.mirrors import difference
from evervec.pipeline.mirrors import mirror as mirror_module
from evervec.pipeline.mirrors.mirror import Mirror
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.embeddings.changes import FeedState
from tests.pipeline.mirrors.mirroring import WIDTH, process, stored, until_true, worker
from tests.pipeline.search.meaning import search
from tests.store.planting import unit

TEXTS = [f"row {number}" for number in range(100)]
EMPTY: Ids = np.empty(0, np.int64)


async def read_all(resources: Resources, dataset: DatasetRef) -> tuple[FeedState, FeedVectors]:
    """Return the feed state and all vectors of a dataset, by their ids."""
    async with resources.database.read() as tx:
        feed = await changes.feed_state(tx, dataset.id, dataset.space_id)
        assert feed is not None
        vectors = await changes.all_vectors(tx, dataset.id, dataset.space_id, feed.identity.dimensions)
    return feed, vectors.take(np.argsort(vectors.ids))


def publish(
    resources: Resources, dataset: DatasetRef, vectors: FeedVectors, feed: FeedState, **other_history: Any
) -> None:
    """Put a file on the disk that says to be of another history."""
    watermark = other_history.pop("watermark", feed.watermark)
    segment = build(vectors, replace(feed.identity, **other_history), watermark)
    MirrorFolder(resources.settings.mirrors).save(dataset.project_id, dataset.id, segment)


def described(resources: Resources, dataset: DatasetRef) -> dict[str, Any]:
    found = MirrorFolder(resources.settings.mirrors).describe(dataset.project_id, dataset.id)
    assert found is not None
    return found


async def exact(resources: Resources, dataset: DatasetRef, mirror: Mirror) -> bool:
    """Return whether a mirror is the database's, without the product's own comparison."""
    assert mirror.index is not None
    snapshot = mirror.index.snapshot
    _, wanted = await read_all(resources, dataset)
    ids, versions = snapshot.versions()
    order = np.argsort(ids)
    return (
        ids[order].tolist() == wanted.ids.tolist()
        and versions[order].tolist() == wanted.versions.tolist()
        and snapshot.kinds_of(wanted.ids).tolist() == wanted.kinds.tolist()
        and bool(np.abs(snapshot.vectors(wanted.ids) - wanted.rows).max() < 2e-3)
    )


class Comparisons:
    """Counts the comparisons with another history."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._carry_over = mirror_module.carry_over
        monkeypatch.setattr(mirror_module, "carry_over", self._counted)

    async def _counted(self, *arguments: Any) -> Any:
        self.count += 1
        return await self._carry_over(*arguments)


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Comparisons:
    """Count the comparisons of this test."""
    return Comparisons(monkeypatch)


async def opened(resources: Resources, dataset: DatasetRef) -> tuple[int, str, bool]:
    """Open what is on the disk as the next start does; return what it found to differ, its state, and whether it is right."""
    async with process(resources) as start:
        mirror = start.mirrors.mirror(dataset)
        await mirror.open()
        found = mirror.last_check
        differing = 0 if found is None else found.missing + found.extra + found.stale
        return differing, f"{mirror.state}{mirror.reason}", await exact(resources, dataset, mirror)


@pytest.mark.parametrize("other_history", [{"timeline": 99}, {"schema": "0001"}], ids=["promoted", "migrated"])
async def test_a_file_that_differs_in_nothing_is_taken_over_as_it_is(
    resources: Resources, dataset: DatasetRef, comparisons: Comparisons, other_history: dict[str, Any]
) -> None:
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, vectors, feed, **other_history)
    for _ in range(3):
        assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 1, "the second start knows"
    assert described(resources, dataset)["generation"] == 2
    await stored(resources, dataset, ["written afterwards"])
    assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 1


async def test_other_numbers_under_the_same_versions_are_found(
    resources: Resources, dataset: DatasetRef, comparisons: Comparisons
) -> None:
    """A transaction that was lost and one that came instead have the same id: nothing but the vectors tells them apart."""
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, otherwise(vectors, slice(0, 10)), feed, timeline=99)
    assert await opened(resources, dataset) == (10, "ready", True)
    assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 1
    async with worker(resources) as following:
        await until_true(following, dataset)
        answer = await search(following, TEXTS[3], k=1)
        assert (answer.engine, answer.hits[0].text) == ("mirror", TEXTS[3])


async def test_a_comparison_of_versions_alone_would_find_nothing(
    resources: Resources, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break the comparison, and see that the tests of this file would notice."""
    monkeypatch.setattr(difference, "_unlike", lambda *_: EMPTY)
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, otherwise(vectors, slice(0, 10)), feed, timeline=99)
    assert await opened(resources, dataset) == (0, "ready", False)


async def test_a_kind_that_is_another_one_is_found(resources: Resources, dataset: DatasetRef) -> None:
    """The id of a vector that was lost is given to a row of another kind that has the same text."""
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    kinds = vectors.kinds.copy()
    kinds[:2] = 4
    publish(resources, dataset, replace(vectors, kinds=kinds), feed, timeline=99)
    assert await opened(resources, dataset) == (2, "ready", True)
    assert await opened(resources, dataset) == (0, "ready", True)


async def test_rows_that_were_lost_or_never_lost_are_found(
    resources: Resources, dataset: DatasetRef, psql: Any, comparisons: Comparisons
) -> None:
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    foreign = FeedVectors(
        vectors.ids[-3:] + 1000, np.full(3, feed.watermark.xmax + 7), vectors.kinds[:3], unit(3, WIDTH)
    )
    publish(resources, dataset, FeedVectors.joined([vectors.take(slice(4, None)), foreign], WIDTH), feed, timeline=99)
    assert await opened(resources, dataset) == (7, "ready", True)
    await psql.execute("DELETE FROM messages WHERE content IN ('row 1', 'row 50')")
    await stored(resources, dataset, ["written afterwards"])
    assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 1


async def test_a_version_of_the_file_that_is_given_again_later_is_not_taken_for_the_new_one(
    resources: Resources, dataset: DatasetRef, psql: Any, comparisons: Comparisons
) -> None:
    """The file has a row in a version that is still to come; then a transaction of that id writes this very row."""
    ids = await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    row, to_come = vectors.ids.tolist().index(ids[0]), feed.watermark.xmax + 60
    lost = otherwise(vectors, slice(row, row + 1))
    lost.versions[row] = to_come
    # the version that the row has now was open when the file was written: the feed tells it
    present = int(vectors.versions[row])
    seen = Watermark(present, to_come + 1, (present,))
    publish(resources, dataset, lost, feed, timeline=99, watermark=seen)
    differing, state, right = await opened(resources, dataset)
    assert (differing, state, right) == (1, "ready", True)
    while await psql.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint") < to_come:
        await psql.execute("SELECT pg_current_xact_id()")
    given = await psql.fetchval(
        "UPDATE embeddings SET embedding = (SELECT embedding FROM embeddings WHERE vector_id = $2) WHERE vector_id = $1 "
        "RETURNING changed_xid::text::bigint",
        ids[0],
        ids[1],
    )
    assert given == to_come
    assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 1


async def test_a_file_that_differs_in_much_is_built_anew(
    resources: Resources, dataset: DatasetRef, comparisons: Comparisons
) -> None:
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, otherwise(vectors, slice(0, 30)), feed, timeline=99)
    assert await opened(resources, dataset) == (30, "ready", True)
    assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 1


async def test_a_process_that_can_not_write_the_folder_carries_its_mirror_over_in_memory(
    resources: Resources, dataset: DatasetRef, comparisons: Comparisons, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, vectors, feed, timeline=99)
    place = resources.settings.mirrors / str(dataset.project_id) / f"{dataset.id}.lock"
    place.unlink()
    place.mkdir()
    differing, state, right = await opened(resources, dataset)
    assert (differing, right) == (0, True)
    assert state.startswith("readyin memory only")
    place.rmdir()
    assert await opened(resources, dataset) == (0, "ready", True)
    assert await opened(resources, dataset) == (0, "ready", True)
    assert comparisons.count == 2


async def test_a_comparison_that_is_cut_off_begins_again(
    resources: Resources, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, otherwise(vectors, slice(0, 10)), feed, timeline=99)
    carry_over, calls = mirror_module.carry_over, 0

    async def cut_off(tx: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            tx._connection.terminate()
        return await carry_over(tx, *arguments)

    monkeypatch.setattr(mirror_module, "carry_over", cut_off)
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        assert await exact(resources, dataset, mirror)
        assert calls == 2


async def test_two_processes_that_share_the_file_are_both_right(resources: Resources, dataset: DatasetRef) -> None:
    await stored(resources, dataset, TEXTS)
    feed, vectors = await read_all(resources, dataset)
    publish(resources, dataset, otherwise(vectors, slice(0, 10)), feed, timeline=99)
    async with worker(resources) as one, worker(resources) as two:
        for each in (one, two):
            mirror = await until_true(each, dataset)
            assert await exact(resources, dataset, mirror)
        await stored(one, dataset, ["written afterwards"])
        for each in (one, two):
            await until_true(each, dataset)
    assert await opened(resources, dataset) == (0, "ready", True)


def otherwise(vectors: FeedVectors, places: slice) -> FeedVectors:
    """Return the vectors with other numbers at some places, under the same ids and versions."""
    rows: NDArray[np.float32] = vectors.rows.copy()
    rows[places] = unit(len(rows[places]), vectors.rows.shape[1])
    return replace(vectors, rows=rows, versions=vectors.versions.copy())
