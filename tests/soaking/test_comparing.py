"""The soak's own comparison can fail: every way in which a mirror may differ is planted once and found."""

from dataclasses import replace

import numpy as np
import pytest

from evervec.domain.feed import Changes, DatabaseIdentity, FeedVectors, Ids, Watermark
from evervec.mirror.build import build
from evervec.mirror.index import DatasetIndex
from scripts.soaking.comparing import Expected, compared, covered

DIMENSIONS = 8
IDENTITY = DatabaseIdentity("cluster", 1, 1, 1, DIMENSIONS, "schema")
SEEN = Watermark(100, 105, (102,))
NONE = np.empty(0, np.int64)


def vectors(ids: Ids, version: int = 50) -> FeedVectors:
    """Make different vectors of length 1."""
    rows = np.random.default_rng(int(ids.sum()) + version).standard_normal((len(ids), DIMENSIONS)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return FeedVectors(ids, np.full(len(ids), version, np.int64), np.ones(len(ids), np.int16), rows)


@pytest.fixture
def held() -> FeedVectors:
    return vectors(np.arange(1, 21, dtype=np.int64))


@pytest.fixture
def index(held: FeedVectors) -> DatasetIndex:
    return DatasetIndex(build(held, IDENTITY, SEEN))


def expected(held: FeedVectors, gone: Ids = NONE, gone_in: Ids = NONE) -> Expected:
    return Expected(Watermark(110, 110), held, gone, gone_in)


def other_version(held: FeedVectors, at: int, version: int) -> FeedVectors:
    versions = held.versions.copy()
    versions[at] = version
    return replace(held, versions=versions)


def test_an_equal_mirror_is_equal(held: FeedVectors, index: DatasetIndex) -> None:
    verdict = compared(expected(held), index.snapshot)
    assert (verdict.equal, verdict.compared, verdict.in_flight) == (True, 20, 0)


def test_what_the_mirror_does_not_have_is_missing(held: FeedVectors, index: DatasetIndex) -> None:
    index.repair(FeedVectors.none(DIMENSIONS), held.ids[:2])
    verdict = compared(expected(held), index.snapshot)
    assert (verdict.equal, verdict.missing) == (False, 2)


@pytest.mark.parametrize(("gone_in", "extra"), [(None, 1), (99, 1), (103, 1), (102, 0), (105, 0)])
def test_what_only_the_mirror_has_must_have_left_after_its_watermark(
    held: FeedVectors, index: DatasetIndex, gone_in: int | None, extra: int
) -> None:
    gone = NONE if gone_in is None else held.ids[:1]
    wanted = expected(held.take(slice(1, None)), gone, NONE if gone_in is None else np.array([gone_in], np.int64))
    verdict = compared(wanted, index.snapshot)
    assert (verdict.extra, verdict.equal) == (extra, not extra)


@pytest.mark.parametrize(("version", "stale"), [(60, 1), (103, 1), (102, 0), (106, 0)])
def test_another_version_must_be_newer_than_the_watermark(
    held: FeedVectors, index: DatasetIndex, version: int, stale: int
) -> None:
    verdict = compared(expected(other_version(held, 3, version)), index.snapshot)
    assert (verdict.stale, verdict.in_flight, verdict.equal) == (stale, 1 - stale, not stale)


def test_the_same_version_with_other_numbers_is_found(held: FeedVectors, index: DatasetIndex) -> None:
    rows = held.rows.copy()
    rows[7] = rows[8]
    verdict = compared(expected(replace(held, rows=rows)), index.snapshot)
    assert (verdict.equal, verdict.other_numbers, verdict.stale) == (False, 1, 0)


def test_a_delta_is_compared_too(held: FeedVectors, index: DatasetIndex) -> None:
    later = vectors(np.array([30, 31], np.int64), version=103)
    index.apply(Changes(SEEN, later, held.ids[:1]))
    kept = FeedVectors.joined([held.take(slice(1, None)), later], DIMENSIONS)
    assert compared(expected(kept), index.snapshot).equal
    assert compared(expected(held), index.snapshot).extra == 2


def test_covered_says_what_the_watermark_says() -> None:
    xids = np.arange(95, 110, dtype=np.int64)
    assert covered(SEEN, xids).tolist() == [SEEN.covers(int(xid)) for xid in xids]
