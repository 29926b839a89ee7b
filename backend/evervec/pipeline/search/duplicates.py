"""Pairs of rows that say the same."""

from dataclasses import dataclass

from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import scope as scopes
from evervec.pipeline.search.scope import Within
from evervec.store import providers
from evervec.store.embeddings import duplicate_pairs, hits
from evervec.store.embeddings.hits import ChunkPlace

MOST_PAIRS = 1_000


@dataclass(frozen=True)
class DuplicatePair:
    """Two rows of nearly the same meaning; `score` is their cosine similarity. Only chunks have places."""

    kind: str
    id: int
    other_id: int
    score: float
    text: str
    other_text: str
    place: ChunkPlace | None = None
    other_place: ChunkPlace | None = None


async def duplicates(
    resources: Resources, *, dataset: str | None = None, kind: str = "message", threshold: float = 0.95, k: int = 100
) -> list[DuplicatePair]:
    """Return pairs of rows at or above a similarity, nearest first, inside the datasets in scope."""
    if not 0 < threshold <= 1:
        raise Refused(reason=f"--threshold is {threshold}, it must be above 0 and at most 1.")
    if not 1 <= k <= MOST_PAIRS:
        raise Refused(reason=f"k is {k}, it must be between 1 and {MOST_PAIRS}.")
    found: list[tuple[int, int, float]] = []
    async with resources.database.read() as tx:
        scope = await scopes.resolve(tx, Within(dataset, kind=kind))
        for part in scope.by_space():
            if part.datasets:
                dimensions = (await providers.space(tx, part.space_id)).dimensions
                found += await duplicate_pairs.find(
                    tx,
                    scope.kinds[0],
                    part.space_id,
                    dimensions,
                    part.dataset_ids,
                    threshold=threshold,
                    most=k,
                )
        found = sorted(found, key=lambda pair: -pair[2])[:k]
        texts = await hits.texts_of(tx, scope.kinds[0], {row_id for one, other, _ in found for row_id in (one, other)})
    # one of the two rows may have been deleted meanwhile
    pairs = [(*pair, texts[pair[0]], texts[pair[1]]) for pair in found if pair[0] in texts and pair[1] in texts]
    return [DuplicatePair(kind, one, other, score, a[0], b[0], a[1], b[1]) for one, other, score, a, b in pairs]
