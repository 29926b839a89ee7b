"""The recall watch: search for a sample of a dataset's own vectors with the mirror, with pgvector's HNSW, and exactly."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec import log
from evervec.domain.feed import FeedVectors
from evervec.mirror.filter import Filter
from evervec.mirror.snapshot import Snapshot
from evervec.pipeline.mirrors.mirror import Mirror
from evervec.store import mirrors
from evervec.store.database.session import Database, ReadTx
from evervec.store.embeddings import changes, neighbours
from evervec.store.schema.embeddables import BY_KIND

logger = log.get("mirror")

SAMPLED = 30
NEIGHBOURS = 10
EQUAL_SCORE = 1e-6


@dataclass
class Recalls:
    """Counts of neighbours found, by engine, out of `wanted`."""

    found: dict[str, int]
    wanted: int = 0

    def of(self, engine: str) -> float:
        """Return an engine's recall@10; 1 where there was nothing to find."""
        return self.found[engine] / self.wanted if self.wanted else 1.0


async def measure(database: Database, mirror: Mirror, *, sampled: int = SAMPLED) -> Recalls | None:
    """Measure recall@10 and store it. A mirror below its target is rebuilt; a low recall of HNSW is logged.

    Return None while the mirror has nothing to search.
    """
    snapshot = mirror.snapshot()
    if snapshot is None or not len(snapshot):
        return None
    async with database.read() as tx:
        sample = await _sample(tx, mirror.dataset.id, snapshot, sampled)
        await neighbours.use_index(tx, k=NEIGHBOURS)
        recalls = await _compared(tx, mirror.dataset.id, snapshot, sample)
    target = snapshot.main.tuning.target
    async with database.transaction() as tx:
        for engine in recalls.found:
            await mirrors.record_recall(tx, mirror.dataset.id, engine, recalls.of(engine), target, len(sample))
    await _answer(mirror, recalls, target)
    return recalls


async def _sample(tx: ReadTx, dataset_id: UUID, snapshot: Snapshot, count: int) -> FeedVectors:
    ids = snapshot.versions()[0]
    chosen = np.random.default_rng().choice(ids, size=min(count, len(ids)), replace=False)
    return await changes.by_ids(tx, dataset_id, snapshot.identity.space_id, chosen, snapshot.dimensions)


async def _compared(tx: ReadTx, dataset_id: UUID, snapshot: Snapshot, sample: FeedVectors) -> Recalls:
    """Search for the neighbours of each vector among its own kind, itself left out, and count what each engine finds."""
    recalls, of = Recalls({"mirror": 0, "pgvector": 0}), (dataset_id, snapshot.identity.space_id)
    for row, vector_id, kind in zip(sample.rows, sample.ids.tolist(), sample.kinds.tolist(), strict=True):
        answers = {
            engine: await neighbours.nearest_ids(
                tx, BY_KIND[kind], row, space_id=of[1], k=NEIGHBOURS + 1, dataset_id=dataset_id, exact=engine == "exact"
            )
            for engine in ("exact", "pgvector")
        }
        mirrored = await asyncio.to_thread(snapshot.search, row[None, :], NEIGHBOURS + 1, Filter(frozenset({kind})))
        answers["mirror"] = mirrored.ids[0].tolist()
        others = {
            engine: [found for found in ids if found not in (vector_id, -1)][:NEIGHBOURS]
            for engine, ids in answers.items()
        }
        for engine, count in (await _as_near(tx, of, row, others)).items():
            recalls.found[engine] += count
        recalls.wanted += len(others["exact"])
    return recalls


async def _as_near(
    tx: ReadTx, of: tuple[UUID, int], row: NDArray[np.float32], answers: dict[str, list[int]]
) -> dict[str, int]:
    """Count the answers of each engine that are as near as the farthest exact one, so that equal texts can replace each other."""
    ids = sorted({vector_id for listed in answers.values() for vector_id in listed})
    found = await changes.by_ids(tx, *of, ids, len(row))
    scores = dict(zip(found.ids.tolist(), (found.rows @ row).tolist(), strict=True))
    farthest = min((scores[vector_id] for vector_id in answers["exact"]), default=0.0) - EQUAL_SCORE
    return {
        engine: sum(scores.get(vector_id, -1.0) >= farthest for vector_id in listed)
        for engine, listed in answers.items()
        if engine != "exact"
    }


async def _answer(mirror: Mirror, recalls: Recalls, target: float) -> None:
    for engine in recalls.found:
        if recalls.of(engine) < target:
            logger.warning(
                "recall@10 is low",
                dataset=mirror.name,
                engine=engine,
                recall=round(recalls.of(engine), 4),
                target=target,
            )
    if recalls.of("mirror") < target:
        await mirror.rebuild(f"recall@10 fell to {recalls.of('mirror'):.3f}, the target is {target:g}")
