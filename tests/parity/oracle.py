"""What a search must answer, worked out by numpy from every vector that the database has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.store.database.session import Database
from evervec.store.embeddings.hits import SearchHit
from evervec.store.schema.embeddables import BY_KIND

EXACT = 1e-5
"""How far two ways to compute one cosine in single precision may be apart."""
HALF = 2e-3
"""How far half precision may move a cosine: rows that lie closer to each other than that may change places."""

EVERY = (
    "SELECT e.kind, e.row_id, e.dataset_id, d.slug, e.embedding FROM embeddings e JOIN datasets d ON d.id = e.dataset_id "
    "WHERE e.embedding IS NOT NULL ORDER BY e.vector_id"
)


@dataclass(frozen=True)
class Oracle:
    """All rows with a vector: kinds int `(n,)`, row ids `(n,)`, datasets `(n,)`, and directions float64 `(n, dim)`."""

    kinds: NDArray[np.int64]
    row_ids: NDArray[np.int64]
    datasets: Sequence[UUID]
    slugs: Sequence[str]
    rows: NDArray[np.float64]

    @classmethod
    async def read(cls, database: Database, width: int) -> "Oracle":
        """Read the truth of this moment from the database."""
        async with database.read() as tx:
            found = await tx.fetch(EVERY)
        rows = np.array([np.frombuffer(row["embedding"], ">f4", offset=4) for row in found], np.float64)
        rows = rows.reshape(-1, width)
        return cls(
            np.array([row["kind"] for row in found], np.int64),
            np.array([row["row_id"] for row in found], np.int64),
            [row["dataset_id"] for row in found],
            [row["slug"] for row in found],
            rows / np.linalg.norm(rows, axis=1, keepdims=True),
        )

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the cosine of every row, `(n,)`."""
        direction = query.astype(np.float64)
        return np.asarray(self.rows @ (direction / np.linalg.norm(direction)))

    def allowed(
        self, kinds: Iterable[int], datasets: Iterable[UUID], row_ids: Sequence[int] | None
    ) -> NDArray[np.bool_]:
        """Return which rows a search may answer, `(n,)`."""
        wanted = set(datasets)
        mask = np.isin(self.kinds, list(kinds)) & np.array([owner in wanted for owner in self.datasets], bool)
        return np.asarray(mask if row_ids is None else mask & np.isin(self.row_ids, list(row_ids)), bool)

    def judge(
        self,
        hits: Sequence[SearchHit],
        query: NDArray[np.float32],
        allowed: NDArray[np.bool_],
        k: int,
        tolerance: float,
    ) -> None:
        """Fail unless these are the k nearest of what is allowed, up to rows that are closer than `tolerance`."""
        scores = self.scores(query)
        best = np.sort(scores[allowed])[::-1][:k]
        assert len(hits) == len(best), f"{len(hits)} hits, there are {len(best)}"
        where = self.places(hits)
        assert len(set(where)) == len(where), "a row is answered twice"
        assert allowed[where].all(), "a row that the filter does not let through"
        np.testing.assert_allclose([hit.score for hit in hits], scores[where], atol=EXACT, err_msg="a score is wrong")
        assert (np.diff([hit.score for hit in hits]) <= 0).all(), "not the best first"
        assert [hit.dataset for hit in hits] == [self.slugs[place] for place in where]
        short = best - scores[where]
        assert short.max(initial=0) <= tolerance, f"place {int(short.argmax())} could be {short.max():.2e} nearer"

    def recall(
        self, hits: Sequence[SearchHit], query: NDArray[np.float32], allowed: NDArray[np.bool_], k: int
    ) -> tuple[int, int]:
        """Return how many hits are as near as the k-th nearest, and how many there could be."""
        scores = self.scores(query)
        best = np.sort(scores[allowed])[::-1][:k]
        return int((scores[self.places(hits)] >= best[-1] - EXACT).sum()), len(best)

    def places(self, hits: Sequence[SearchHit]) -> list[int]:
        """Return the positions of the rows of hits here."""
        return [self._at[hit.kind, hit.id] for hit in hits]

    @cached_property
    def _at(self) -> dict[tuple[str, int], int]:
        rows = zip(self.kinds.tolist(), self.row_ids.tolist(), strict=True)
        return {(BY_KIND[kind].name, row): place for place, (kind, row) in enumerate(rows)}
