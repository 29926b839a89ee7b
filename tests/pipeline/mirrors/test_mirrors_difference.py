"""A mirror that is wrong is found out, named and put right: what was lost, what came late, what another identity of the database wrote."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import numpy as np
import pytest

from evervec.domain.feed import Changes, DatabaseIdentity, FeedVectors, Watermark
from evervec.mirror.build import build
from evervec.mirror.disk.folder import MirrorFolder
from evervec.pipeline.mirrors.follower import Follower
from evervec.pipeline.mirrors.mirror import Mirror
from evervec.pipeline.mirrors.relation import NothingToMirrorError
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.embeddings.changes import FeedState
from tests.pipeline.mirrors.mirroring import (
    TEXTS,
    embedded,
    eventually,
    ids_in,
    process,
    stored,
    until,
    until_true,
    worker,
)
from tests.pipeline.search.meaning import search


async def read_all(resources: Resources, dataset: DatasetRef) -> tuple[FeedState, FeedVectors]:
    """Return the feed state and all vectors of a dataset."""
    async with resources.database.read() as tx:
        heading = await changes.feed_state(tx, dataset.id, dataset.space_id)
        assert heading is not None
        return heading, await changes.all_vectors(tx, dataset.id, dataset.space_id, heading.identity.dimensions)


def save(
    resources: Resources,
    dataset: DatasetRef,
    vectors: FeedVectors,
    identity: DatabaseIdentity,
    watermark: Watermark,
    *,
    factory: str | None = None,
) -> int:
    """Put a mirror on disk that says of itself what we like; return its generation."""
    folder = MirrorFolder(resources.settings.mirrors)
    folder.save(dataset.project_id, dataset.id, build(vectors, identity, watermark, factory=factory))
    return generation(resources, dataset)


def generation(resources: Resources, dataset: DatasetRef) -> int:
    """Which generation is on disk."""
    found = MirrorFolder(resources.settings.mirrors).generation(dataset.project_id, dataset.id)
    assert found is not None
    return found


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    """Open a second connection, as another client."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_the_old_failure_168_rows_and_an_index_of_155_are_named_and_repaired_without_a_rebuild(
    resources: Resources, dataset: DatasetRef
) -> None:
    before = await stored(resources, dataset, [f"row {n}" for n in range(168)])
    lost = sorted(before)[70:83]
    heading, vectors = await read_all(resources, dataset)
    left = vectors.take(~np.isin(vectors.ids, lost))
    assert len(left) == 155
    number = save(resources, dataset, left, heading.identity, heading.watermark)

    async with worker(resources) as restarted:
        mirror = await until_true(restarted, dataset)
        found = mirror.last_check
        assert found is not None
        assert (found.vectors, found.missing, found.extra, found.stale) == (168, 13, 0, 0)
        assert found.examples == {"missing": lost}
        assert (found.in_sync, found.repaired) == (False, "repair")
        assert mirror.index is not None
        assert len(mirror.index.snapshot.main) == 155, "the segment that was on disk is the one that is searched"
        assert generation(resources, dataset) == number, "nothing was built"
        again = await restarted.mirrors.check(dataset, deep=True)
        assert (again.in_sync, again.vectors) == (True, 168)

        new = await stored(restarted, dataset, [f"late {n}" for n in range(20)])
        assert min(new) > max(before), "no vector id is handed out twice"
        await until_true(restarted, dataset)
        assert len(set(before) | set(new)) == 188
        answer = await search(restarted, "row 75", k=3)
        assert (answer.engine, answer.hits[0].text) == ("mirror", "row 75")

    async with worker(resources) as third:
        mirror = await until_true(third, dataset)
        assert mirror.last_check is not None
        assert mirror.last_check.in_sync


async def test_ids_stay_unique_when_everything_was_deleted_and_the_folder_with_it(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    first = await stored(resources, dataset, TEXTS)
    async with worker(resources) as one:
        await until_true(one, dataset)
        await psql.execute("TRUNCATE messages CASCADE")
        await eventually(lambda: empty(one, dataset))
        second = await stored(one, dataset, TEXTS)
        assert min(second) > max(first)
        await until_true(one, dataset)
    async with worker(resources) as other:
        mirror = await until_true(other, dataset)
        assert mirror.index is not None
        assert sorted(mirror.index.versions()[0].tolist()) == sorted(second)


async def empty(resources: Resources, dataset: DatasetRef) -> bool:
    index = resources.mirrors.mirror(dataset).index
    return index is not None and not len(index)


async def test_a_commit_that_comes_late_is_not_missed(resources: Resources, dataset: DatasetRef, other: Any) -> None:
    ids = await stored(resources, dataset, TEXTS)
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        late = other.transaction()
        await late.start()
        await other.execute("UPDATE embeddings SET embedding = embedding * embedding WHERE vector_id = $1", ids[0])
        xid = int(await other.fetchval("SELECT pg_current_xact_id()::text"))
        newer = await stored(following, dataset, ["newer"])
        assert mirror.index is not None
        index = mirror.index
        await until(lambda: newer[0] in index.versions()[0])
        assert index.snapshot.watermark.xmax > xid
        await late.commit()
        await until_true(following, dataset)
        held = dict(zip(*(array.tolist() for array in index.versions()), strict=True))
        assert held[ids[0]] == xid
        found = await following.mirrors.check(dataset, follow=False, deep=True)
        assert found.in_sync, "it came by the feed, not by a check"


async def test_a_backup_that_is_older_than_the_mirror_is_noticed_at_the_start(
    resources: Resources, dataset: DatasetRef
) -> None:
    await stored(resources, dataset, TEXTS)
    heading, vectors = await read_all(resources, dataset)
    ahead = Watermark(heading.watermark.xmax + 5_000, heading.watermark.xmax + 5_000)
    save(resources, dataset, vectors.take(slice(0, 10)), heading.identity, ahead)
    async with process(resources) as once:
        assert len((await search(once, TEXTS[30], engine="mirror")).hits) == 10
        assert (await search(once, TEXTS[30])).hits[0].text == TEXTS[30]
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        assert mirror.last_check is not None
        assert mirror.last_check.repaired in ("", "rebuild"), "it was built anew, there is nothing left to repair"
    described = MirrorFolder(resources.settings.mirrors).describe(dataset.project_id, dataset.id)
    assert described is not None
    assert (described["n"], described["watermark"] != str(ahead)) == (len(TEXTS), True), "the one of the future is gone"


async def test_a_backup_restored_while_a_mirror_is_still_being_opened_is_noticed(
    resources: Resources, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(resources, dataset, TEXTS)
    checked, go_on = Follower._check, asyncio.Event()

    async def slow(self: Follower, mirror: Mirror, *, asked: bool) -> None:
        await checked(self, mirror, asked=asked)
        await go_on.wait()

    monkeypatch.setattr(Follower, "_check", slow)
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        assert mirror.index is not None
        index = mirror.index
        ahead = Watermark(*2 * [index.snapshot.watermark.xmax + 5_000])
        async with mirror._writing:  # not between a read of the feed and its application
            index.apply(Changes(ahead, FeedVectors.none(index.snapshot.dimensions), index.versions()[0][:10]))
        try:
            await until(lambda: mirror.index is None)
        finally:
            go_on.set()
        await until_true(following, dataset)


async def test_a_backup_restored_under_a_mirror_that_follows_is_noticed(
    resources: Resources, dataset: DatasetRef
) -> None:
    await stored(resources, dataset, TEXTS)
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        assert mirror.index is not None
        index = mirror.index
        now = index.snapshot
        # as if this process had seen a future that the restored database never had
        ahead = Watermark(now.watermark.xmax + 5_000, now.watermark.xmax + 5_000)
        gone = now.versions()[0][:10]
        index.apply(Changes(ahead, FeedVectors.none(now.dimensions), gone))
        await until(lambda: mirror.index is not index and mirror.state == "ready")
        await until_true(following, dataset)
        assert (await search(following, TEXTS[0])).hits[0].text == TEXTS[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("cluster", "1"), ("database", 1)],
)
async def test_a_mirror_of_another_identity_is_set_aside(
    resources: Resources, dataset: DatasetRef, name: str, value: object
) -> None:
    await stored(resources, dataset, TEXTS)
    heading, vectors = await read_all(resources, dataset)
    strange = replace(heading.identity, **{name: value})  # type: ignore[arg-type]
    save(resources, dataset, vectors.take(slice(0, 10)), strange, heading.watermark)
    async with worker(resources) as following:
        await until_true(following, dataset)
        assert (await search(following, TEXTS[30])).hits[0].text == TEXTS[30]
    folder = resources.settings.mirrors / str(dataset.project_id)
    [reason] = [path.read_text() for path in folder.glob("*.reason.*.aside")]
    assert f"{name.replace('_', ' ')} {value}" in reason


async def test_tombstones_that_were_pruned_are_found_by_comparing(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await stored(resources, dataset, TEXTS)
    heading, vectors = await read_all(resources, dataset)
    number = save(resources, dataset, vectors, heading.identity, heading.watermark)
    # few of 40: of more tombstones the mirror would be compacted as soon as it is there
    gone = await psql.fetch("DELETE FROM messages WHERE id % 10 = 0 RETURNING id")
    new = await stored(resources, dataset, ["after that"])
    async with resources.database.transaction() as tx:
        assert await changes.prune(tx, dataset.id, (await changes.watermark(tx)).xmin) == len(gone)
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        assert mirror.last_check is not None
        assert mirror.last_check.in_sync, "it came up by comparison, before any check"
        assert generation(resources, dataset) == number, "and not by a rebuild"
        assert mirror.index is not None
        assert set(mirror.index.versions()[0].tolist()) == set(await ids_in(following, dataset)) > set(new)


async def test_tombstones_go_once_every_mirror_has_seen_them_and_no_sooner(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await stored(resources, dataset, TEXTS)

    async def left() -> int:
        return int(await psql.fetchval("SELECT count(*) FROM vector_tombstones"))

    async def none_left() -> bool:
        return await left() == 0

    async with worker(resources) as slow, worker(resources, mirror_check_seconds=0.1) as quick:
        mirror = await until_true(slow, dataset)
        await until_true(quick, dataset)
        async with mirror._writing:
            await psql.execute("DELETE FROM messages WHERE id % 2 = 0")
            await until_true(quick, dataset)
            first = quick.mirrors.mirror(dataset).last_check
            await until(lambda: quick.mirrors.mirror(dataset).last_check is not first)
            assert await left() == len(TEXTS) // 2
        await until_true(slow, dataset)
        await eventually(none_left)
        await psql.execute("DELETE FROM messages WHERE id % 3 = 0")
        for each in (slow, quick):
            await until_true(each, dataset)
            assert (await each.mirrors.check(dataset, follow=False)).in_sync


async def test_what_was_written_around_the_feed_is_found_and_repaired(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    ids = await stored(resources, dataset, [f"row {n}" for n in range(100)])
    async with worker(resources) as following:
        await until_true(following, dataset)
        await psql.execute(
            "ALTER TABLE embeddings DISABLE TRIGGER evervec_vector_changed, DISABLE TRIGGER evervec_vector_deleted"
        )
        await psql.execute("DELETE FROM embeddings WHERE vector_id = ANY($1)", ids[:2])
        await psql.execute("UPDATE embeddings SET changed_xid = '3' WHERE vector_id = ANY($1)", ids[2:5])
        await psql.execute(
            "ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed, ENABLE ALWAYS TRIGGER evervec_vector_deleted"
        )
        found = await following.mirrors.check(dataset, repair=False)
        assert (found.missing, found.extra, found.stale, found.repaired) == (0, 2, 3, "")
        assert found.examples == {"extra": sorted(ids[:2]), "stale": sorted(ids[2:5])}
        again = await following.mirrors.check(dataset)
        assert (again.extra, again.stale, again.repaired) == (2, 3, "repair")
        assert (await following.mirrors.check(dataset, deep=True)).in_sync


async def test_a_deep_check_finds_other_numbers_under_the_same_version_and_puts_them_right(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    ids = await stored(resources, dataset, [f"row {n}" for n in range(100)])
    async with worker(resources) as following:
        await until_true(following, dataset)
        await psql.execute("ALTER TABLE embeddings DISABLE TRIGGER evervec_vector_changed")
        await psql.execute(
            "UPDATE embeddings SET embedding = embedding * embedding WHERE vector_id = ANY($1)", ids[:10]
        )
        await psql.execute("ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed")
        assert (await following.mirrors.check(dataset)).in_sync, "ids and versions are the same"
        found = await following.mirrors.check(dataset, deep=True)
        assert (found.missing, found.extra, found.stale, found.repaired) == (0, 0, 10, "rebuild")
        assert found.examples == {"stale": sorted(ids[:10])}
        assert (await following.mirrors.check(dataset, deep=True)).in_sync


async def test_a_check_that_only_looks_changes_nothing(resources: Resources, dataset: DatasetRef) -> None:
    await stored(resources, dataset, TEXTS)
    async with process(resources) as once:
        found = await once.mirrors.check(dataset, repair=False)
        assert (found.missing, found.repaired) == (len(TEXTS), "")
        assert once.mirrors.mirror(dataset).index is None
        assert not once.settings.mirrors.exists()


async def test_a_mirror_that_differs_in_much_is_built_anew(resources: Resources, dataset: DatasetRef) -> None:
    await stored(resources, dataset, TEXTS)
    heading, vectors = await read_all(resources, dataset)
    number = save(resources, dataset, vectors.take(slice(0, 20)), heading.identity, heading.watermark)
    async with worker(resources) as following:
        mirror = await until_true(following, dataset)
        assert mirror.last_check is not None
        assert (mirror.last_check.missing, mirror.last_check.repaired) == (20, "rebuild")
        assert generation(resources, dataset) == number + 1


async def test_twenty_thousand_deletes_at_once(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await stored(resources, dataset, TEXTS)
    await psql.execute("ALTER TABLE embeddings DISABLE TRIGGER evervec_vector_changed")
    # of a kind that has no HNSW index, which would take minutes to fill
    await psql.execute(
        "INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, embedded_at) "
        "SELECT 99, 1000000 + n, $1, '\\x00'::bytea || substr(sha256(int8send(n)), 2), "
        "(SELECT array_agg(sin(n * i) + 0.001) FROM generate_series(1, 32) i)::vector, "
        "'\\x00'::bytea || substr(sha256(int8send(n)), 2), s.id, now() "
        "FROM generate_series(1, 20000) n, embedding_spaces s WHERE s.state = 'active'",
        dataset.id,
    )
    await psql.execute("ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed")
    # what it was built of does not matter here, and flat is built soonest
    async with worker(resources, mirror_index="SQfp16") as following:
        mirror = await until_true(following, dataset)
        assert mirror.index is not None
        assert len(mirror.index) == 20_040
        await psql.execute("DELETE FROM embeddings WHERE row_id > 1000000")
        await until_true(following, dataset)
        assert (await search(following, TEXTS[3], k=40)).hits[0].text == TEXTS[3]
        await until(lambda: mirror.index is not None and len(mirror.index.snapshot.main) == 40)
        assert len((await search(following, TEXTS[3], k=50)).hits) == 40


async def test_a_dataset_of_its_own_is_checked_only_while_it_lives(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await embedded(resources, psql, dataset, "a")
    async with process(resources) as once:
        await psql.execute("UPDATE datasets SET deleted_at = now()")
        with pytest.raises(NothingToMirrorError, match="deleted"):
            await once.mirrors.check(dataset)


async def test_a_dataset_without_bells_is_looked_at_while_others_ring_all_the_time(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    """The doorbell wakes the loop, but only polling finds changes that rang for nothing: one must not delay the other."""
    await stored(resources, dataset, TEXTS)
    async with worker(resources, mirror_poll_seconds=0.2) as following:
        mirror = await until_true(following, dataset)
        assert mirror.index is not None
        ringing = asyncio.create_task(ring_for_ever(following))
        try:
            await psql.execute("DELETE FROM messages WHERE id % 2 = 0")
            index = mirror.index
            await until(lambda: len(index) == len(TEXTS) // 2)
        finally:
            ringing.cancel()


async def ring_for_ever(resources: Resources) -> None:
    while True:
        resources.mirrors._ring(set())
        await asyncio.sleep(0.02)
