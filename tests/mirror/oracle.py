"""What a mirror must answer, in plain numpy: a dictionary of what is alive, and a scan over it in float32."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evervec.domain.feed import Changes, DatabaseIdentity, Digest, FeedVectors, Ids, Watermark
from evervec.mirror.filter import Filter
from evervec.mirror.snapshot import Snapshot, SnapshotHits

Rows = NDArray[np.float32]

DIMENSIONS = 16
IDENTITY = DatabaseIdentity("7300000000000000001", 1, 5, 1, DIMENSIONS, "0007")
START = Watermark(10, 10)
ROUNDING = 2e-3
"""How far a score may be off: vectors are kept in half precision."""


def row_of(ids: Ids, versions: Ids) -> Rows:
    """Return vectors `(n, DIMENSIONS)` that only id and version decide, so that a wrong one is seen by its score."""
    phases = (ids * 37.0 + versions * 101.0 + 1.0)[:, None]
    rows = np.sin(phases * np.sqrt(np.arange(2, DIMENSIONS + 2)))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows, np.float32)


def vectors(ids: list[int] | range | Ids, version: int | Ids = 1) -> FeedVectors:
    """Return vectors of those ids in one version, or in one each; the kind of an id is its remainder by 3."""
    whole = np.array(ids, np.int64)
    versions = np.full(len(whole), version, np.int64) if isinstance(version, int) else version
    return FeedVectors(whole, versions, (whole % 3).astype(np.int16), row_of(whole, versions))


def changes(at: int, upserts: FeedVectors | None = None, deleted: list[int] | Ids | None = None) -> Changes:
    """Return changes at a moment."""
    none = FeedVectors.none(DIMENSIONS)
    return Changes(Watermark(at, at), none if upserts is None else upserts, np.array(deleted or [], np.int64))


@dataclass
class Oracle:
    """Ids and the version in which each is alive."""

    alive: dict[int, int] = field(default_factory=dict)

    def apply(self, edit: Changes) -> None:
        """Apply the deletes, then the upserts."""
        for number in edit.deleted.tolist():
            self.alive.pop(number, None)
        self.alive.update(zip(edit.upserts.ids.tolist(), edit.upserts.versions.tolist(), strict=True))

    def versions(self) -> tuple[Ids, Ids]:
        """Return ids in rising order, and their versions."""
        ids = np.array(sorted(self.alive), np.int64)
        return ids, np.array([self.alive[number] for number in ids.tolist()], np.int64)

    def allowed(self, only: Filter | None) -> Ids:
        """Return the ids that a filter lets through."""
        ids = self.versions()[0]
        if only is not None and only.kinds is not None:
            ids = ids[np.isin(ids % 3, list(only.kinds))]
        return ids if only is None or only.ids is None else ids[np.isin(ids, only.ids)]

    def check(self, snapshot: Snapshot, queries: Rows, k: int, only: Filter | None = None) -> SnapshotHits:
        """Assert that an answer is as good as a scan of everything, and so is any other that calls itself exact."""
        exact, usual = (snapshot.search(queries, k, only, exact=exact) for exact in (True, False))
        assert exact.exact
        self._verify(exact, queries, k, only)
        if usual.exact:
            self._verify(usual, queries, k, only)
        return exact

    def _verify(self, answer: SnapshotHits, queries: Rows, k: int, only: Filter | None) -> None:
        """Verify one result. Ties may be in any order, but each hit must have the score of its own vector."""
        assert answer.ids.shape == answer.scores.shape == (len(queries), k)
        allowed = self.allowed(only)
        rows = row_of(allowed, np.array([self.alive[number] for number in allowed.tolist()], np.int64))
        scores = queries / np.linalg.norm(queries, axis=1, keepdims=True) @ rows.T
        count = min(k, len(allowed))
        assert (answer.ids[:, count:] == -1).all()
        assert (answer.scores[:, count:] == -np.inf).all()
        best = -np.sort(-scores, axis=1)[:, :count]
        np.testing.assert_allclose(answer.scores[:, :count], best, atol=ROUNDING)
        for found, found_scores, own in zip(answer.ids, answer.scores, scores, strict=True):
            ids = found[:count]
            assert len(set(ids.tolist())) == count
            places = np.searchsorted(allowed, ids)
            assert (allowed[places] == ids).all()
            np.testing.assert_allclose(found_scores[:count], own[places], atol=ROUNDING)

    def agrees(self, snapshot: Snapshot) -> None:
        """Assert that ids, versions, count and digest are those of the snapshot."""
        ids, versions = snapshot.versions()
        order = np.argsort(ids)
        wanted = self.versions()
        np.testing.assert_array_equal(ids[order], wanted[0])
        np.testing.assert_array_equal(versions[order], wanted[1])
        assert len(snapshot) == len(self.alive)
        assert snapshot.digest == Digest.of(*wanted)
