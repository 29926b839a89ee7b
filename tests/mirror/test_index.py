"""The index of a dataset: any order of edits ends where the feed says, and readers never see half of one."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evervec.domain.feed import Changes, FeedVectors, Watermark, compare
from evervec.mirror import index as rules
from evervec.mirror.build import build
from evervec.mirror.filter import Filter
from evervec.mirror.index import DatasetIndex
from tests.mirror.oracle import DIMENSIONS, IDENTITY, ROUNDING, START, Oracle, changes, row_of, vectors

QUERIES = np.random.default_rng(4).standard_normal((3, DIMENSIONS)).astype(np.float32)


def opened(held: FeedVectors) -> tuple[DatasetIndex, Oracle]:
    """Return an index with a main segment, and its oracle."""
    oracle = Oracle()
    oracle.apply(Changes(START, held, np.empty(0, np.int64)))
    return DatasetIndex(build(held, IDENTITY, START)), oracle


def small() -> tuple[DatasetIndex, Oracle]:
    return opened(vectors(range(20)))


def narrow() -> FeedVectors:
    one = np.ones(1, np.int64)
    return FeedVectors(one, one, one.astype(np.int16), np.ones((1, 8), np.float32))


ids = st.integers(0, 39)
edits = st.lists(
    st.tuples(
        st.dictionaries(ids, st.integers(1, 6), max_size=12),
        st.sets(ids, max_size=12),
        st.sampled_from([None, Filter(kinds=frozenset({1})), Filter(ids=np.arange(10, 30))]),
    ),
    max_size=12,
)


@given(edits)
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_edits_ends_where_the_feed_says(
    sequence: list[tuple[dict[int, int], set[int], Filter | None]],
) -> None:
    index, oracle = small()
    for step, (written, deleted, only) in enumerate(sequence):
        versions = np.array(list(written.values()), np.int64)
        edit = changes(20 + step, vectors(list(written), versions), sorted(deleted))

        snapshot = index.apply(edit)

        oracle.apply(edit)
        assert snapshot is index.snapshot
        assert snapshot.watermark == edit.watermark
        oracle.agrees(snapshot)
        oracle.check(snapshot, QUERIES, 7, only)
        oracle.agrees(index.apply(edit))


@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_edits_through_every_tier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index, oracle = opened(vectors(rng.permutation(3_000)))
    for step in range(60):
        chosen = rng.permutation(20_000)[: int(rng.integers(1, 900))]
        edit = changes(
            20 + step, vectors(chosen, step + 2), rng.integers(0, 20_000, int(rng.integers(0, 300))).tolist()
        )
        index.apply(edit)
        oracle.apply(edit)

    snapshot = index.snapshot
    assert len(snapshot.delta.tiers) > 1
    oracle.agrees(snapshot)
    for only in (None, Filter(kinds=frozenset({0, 1})), Filter(ids=rng.integers(0, 20_000, 500))):
        oracle.check(snapshot, QUERIES, 50, only)
    assert (index.digest(), len(index)) == (snapshot.digest, len(snapshot))
    assert not len(compare(oracle.versions(), index.versions()))


def test_the_same_changes_twice_do_no_more_than_once() -> None:
    index, _ = small()
    edit = changes(20, vectors([3, 30], 5), [4])

    once = index.apply(edit)
    twice = index.apply(edit)

    assert twice.base is once.base
    assert twice.delta is once.delta


def test_the_transaction_that_wrote_last_wins_though_its_id_is_lower() -> None:
    index, oracle = small()
    index.apply(Changes(Watermark(15, 21, (15,)), vectors([3, 4], 20), np.empty(0, np.int64)))

    snapshot = index.apply(changes(22, vectors([3], 15)))

    oracle.alive |= {3: 15, 4: 20}
    oracle.agrees(snapshot)
    oracle.check(snapshot, row_of(np.array([3]), np.array([15])), 1)


def test_deleted_and_back_in_the_version_that_is_there_is_no_edit() -> None:
    index, _ = small()
    before = index.snapshot

    after = index.apply(changes(20, vectors([3], 1), [3]))

    assert after.base is before.base
    assert len(after.delta) == 0


BEHIND = [
    Watermark(29, 29),
    Watermark(28, 40, (28, 31)),
    Watermark(30, 39, (30, 31)),
    Watermark(30, 40, (30, 31, 33)),
]


@pytest.mark.parametrize("behind", BEHIND, ids=str)
def test_changes_from_behind_the_watermark_are_refused(behind: Watermark) -> None:
    index, oracle = small()
    index.apply(Changes(Watermark(30, 40, (30, 31)), FeedVectors.none(DIMENSIONS), np.empty(0, np.int64)))

    with pytest.raises(ValueError, match=r"the mirror is at 30:40:30,31 already"):
        index.apply(Changes(behind, vectors([1], 7), np.array([2])))

    oracle.agrees(index.snapshot)


@pytest.mark.parametrize(
    "ahead", [Watermark(30, 40, (30,)), Watermark(30, 41, (30, 31, 40)), Watermark(31, 40, (31,))], ids=str
)
def test_changes_from_the_watermark_on_are_taken(ahead: Watermark) -> None:
    index, oracle = small()
    index.apply(Changes(Watermark(30, 40, (30, 31)), FeedVectors.none(DIMENSIONS), np.empty(0, np.int64)))
    edit = Changes(ahead, vectors([1], 7), np.array([2]))

    snapshot = index.apply(edit)

    oracle.apply(edit)
    oracle.agrees(snapshot)
    assert snapshot.watermark == ahead


def test_vectors_of_another_width_are_refused() -> None:
    index, oracle = small()

    with pytest.raises(ValueError, match="8 wide, those of this dataset 16"):
        index.apply(changes(20, narrow()))

    oracle.agrees(index.snapshot)


def test_an_id_that_comes_twice_is_refused() -> None:
    index, oracle = small()

    with pytest.raises(ValueError, match="Vector 7 comes twice"):
        index.apply(changes(20, vectors([7, 8, 7], np.array([2, 2, 3]))))

    oracle.agrees(index.snapshot)


def test_a_repair_leaves_the_watermark() -> None:
    index, oracle = small()
    index.apply(changes(30, vectors([1], 9)))

    repaired = index.repair(vectors([2, 1, 50], np.array([4, 3, 1])), np.array([10, 11, 70]))

    oracle.apply(changes(30, vectors([2, 1, 50], np.array([4, 3, 1])), [10, 11]))
    oracle.agrees(repaired)
    assert repaired.watermark == Watermark(30, 30)
    with pytest.raises(ValueError, match="8 wide"):
        index.repair(narrow(), np.empty(0, np.int64))


def test_a_repair_replaces_wrong_numbers_of_the_right_version() -> None:
    held = vectors(range(20))
    wrong = FeedVectors(held.ids, held.versions, held.kinds, held.rows[::-1].copy())
    index = DatasetIndex(build(wrong, IDENTITY, START))

    repaired = index.repair(held, np.empty(0, np.int64))

    oracle = Oracle(dict.fromkeys(range(20), 1))
    oracle.agrees(repaired)
    oracle.check(repaired, QUERIES, 20)


def test_an_index_of_another_identity_goes_back_and_replaces_equal_versions() -> None:
    held = vectors(range(20))
    wrong = FeedVectors(held.ids, held.versions, held.kinds, held.rows[::-1].copy())
    index = DatasetIndex(build(wrong, IDENTITY, Watermark(90, 90)))
    promoted = replace(IDENTITY, timeline=2)

    other = index.relabelled(promoted, changes(30, held.take(slice(0, 15)), list(range(20))))

    oracle = Oracle(dict.fromkeys(range(15), 1))
    oracle.agrees(other.snapshot)
    oracle.check(other.snapshot, QUERIES, 15)
    assert (other.snapshot.identity, other.snapshot.watermark) == (promoted, Watermark(30, 30))
    assert other.snapshot.edited().tolist() == list(range(20))
    assert (index.snapshot.identity, len(index), index.snapshot.edited().tolist()) == (IDENTITY, 20, [])
    other.apply(changes(31, vectors([77], 2)))
    assert other.snapshot.kinds_of(np.array([3, 17, 77])).tolist() == [*held.kinds[3:4], -1, *vectors([77]).kinds]


def test_a_repair_does_not_touch_what_changed_after_the_check() -> None:
    index, oracle = small()
    seen = index.snapshot
    meanwhile = changes(30, vectors([1, 60], 9), [2])
    index.apply(meanwhile)

    repaired = index.repair(vectors([1, 2, 3], 5), np.array([60, 4]), compared=seen)

    oracle.apply(meanwhile)
    oracle.apply(changes(30, vectors([3], 5), [4]))
    oracle.agrees(repaired)


def test_a_million_deletes_at_once() -> None:
    count = 1_000_000
    held = FeedVectors(
        np.random.default_rng(5).permutation(count),
        np.ones(count, np.int64),
        np.zeros(count, np.int16),
        np.tile(row_of(np.ones(1, np.int64), np.ones(1, np.int64))[:, :4], (count, 1)),
    )
    identity = type(IDENTITY)(**{**vars(IDENTITY), "dimensions": 4})
    index = DatasetIndex(build(held, identity, START, factory="SQfp16"))
    gone = np.arange(-100, count - 3)

    snapshot = index.apply(Changes(Watermark(20, 20), FeedVectors.none(4), gone))

    assert sorted(index.versions()[0].tolist()) == [count - 3, count - 2, count - 1]
    answer = snapshot.search(np.ones((1, 4), np.float32), 10)
    assert set(answer.ids[0].tolist()) == {-1, count - 3, count - 2, count - 1}


class TestCompaction:
    def test_a_fresh_index_needs_none(self) -> None:
        index, _ = small()

        assert index.compaction_due() is None

    def test_a_delta_that_grew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "DELTA_LEAST", 100)
        index, _ = opened(vectors(range(1_200)))

        index.apply(changes(20, vectors(range(2_000, 2_120))))
        assert index.compaction_due() is None
        index.apply(changes(21, vectors(range(3_000, 3_001))))

        assert index.compaction_due() == "the delta holds 121 vectors beside 1,200"

    def test_many_tombstones(self) -> None:
        index, _ = opened(vectors(range(100)))

        index.apply(changes(20, deleted=list(range(20))))
        assert index.compaction_due() is None
        index.apply(changes(21, deleted=[20]))

        assert index.compaction_due() == "21 of 100 vectors are tombstones"

    def test_too_many_for_a_flat_scan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "FLAT_BELOW", 110)
        index, _ = opened(vectors(range(100)))

        assert index.apply(changes(20, vectors(range(100, 109)))) and index.compaction_due() is None
        index.apply(changes(21, vectors([200])))

        assert index.compaction_due() == "110 vectors are too many for a flat scan (below 110)"


def stream(rng: np.random.Generator, count: int) -> Iterator[Changes]:
    """Yield small edits of 2,500 ids, each in a version of its own."""
    for step in range(count):
        chosen = rng.permutation(2_500)[: int(rng.integers(1, 30))]
        yield changes(20 + step, vectors(chosen, step + 2), rng.integers(0, 2_500, int(rng.integers(0, 10))).tolist())


def test_four_readers_while_a_writer_applies_thousands_of_changes() -> None:
    index, oracle = opened(vectors(range(2_000)))
    done, wrong = threading.Event(), list[str]()
    searched = [0] * 4

    def read(number: int) -> None:
        rng, before = np.random.default_rng(number), START
        while not done.is_set() or not searched[number]:
            snapshot = index.snapshot
            answer = snapshot.search(rng.standard_normal((2, DIMENSIONS)).astype(np.float32), 10)
            present = snapshot.versions_of(answer.ids[0])
            again = snapshot.search(row_of(answer.ids[0], present), 1).scores[:, 0]
            if (present < 0).any() or len(set(answer.ids[0].tolist())) < 10:
                wrong.append(f"dead or twice: {answer.ids[0]} {present}")
            if (again < 1 - ROUNDING).any():
                wrong.append(f"not the vector of that version: {again}")
            if snapshot.watermark.xmin < before.xmin:
                wrong.append(f"back in time: {before} {snapshot.watermark}")
            before, searched[number] = snapshot.watermark, searched[number] + 1

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    try:
        for edit in stream(np.random.default_rng(6), 2_000):
            index.apply(edit)
            oracle.apply(edit)
    finally:
        done.set()
        for reader in readers:
            reader.join(60)

    assert not wrong, wrong[:3]
    assert all(searched)
    oracle.agrees(index.snapshot)
    oracle.check(index.snapshot, QUERIES, 20)


def test_two_writers_lose_nothing() -> None:
    index, oracle = small()

    def write(start: int) -> None:
        for number in range(start, start + 300):
            index.apply(changes(20, vectors([number], 2)))

    writers = [threading.Thread(target=write, args=(start,)) for start in (1_000, 2_000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    oracle.alive |= dict.fromkeys([*range(1_000, 1_300), *range(2_000, 2_300)], 2)
    oracle.agrees(index.snapshot)
