"""numpy, the mirror and exact pgvector are asked the same random questions after the same random edits: they agree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evervec.domain.conditions.tree import OneOf
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import search as searching
from evervec.pipeline.search.scope import Scope
from evervec.store import datasets
from evervec.store.conditions.compiling import check
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from evervec.store.schema.embeddables import EMBEDDABLES, MESSAGE
from tests.fakes.vectors import expected_vector
from tests.parity.oracle import EXACT, HALF, Oracle
from tests.pipeline.mirrors.mirroring import MODEL, WIDTH, process, stored, until_true, worker
from tests.pipeline.search.meaning import search
from tests.store.planting import edit, plant

SEEDS = range(4)
ROUNDS, QUESTIONS = 4, 10
TEXTS = 60
"""So few texts that many rows say the same."""

Engine = tuple[str, float]
ENGINES: Sequence[Engine] = [("auto", HALF), ("mirror", HALF), ("exact", EXACT)]


class Scene:
    """Two datasets with rows of every kind, changed and asked at random."""

    def __init__(self, resources: Resources, psql: Any, every: Sequence[DatasetRef], seed: int) -> None:
        self.resources = resources
        self.psql = psql
        self.datasets = list(every)
        self.chance = np.random.default_rng(seed)

    def text(self) -> str:
        """Return one of few texts."""
        return f"text {self.chance.integers(0, TEXTS)}"

    def dataset(self) -> DatasetRef:
        """Return one of the datasets."""
        return self.datasets[int(self.chance.integers(0, len(self.datasets)))]

    async def change(self, times: int) -> None:
        """Insert, edit, blank, move and delete rows, as any other program would."""
        for _ in range(times):
            kind = EMBEDDABLES[int(self.chance.integers(0, len(EMBEDDABLES)))]
            row_id = await self.psql.fetchval(
                f"SELECT id FROM {kind.table} ORDER BY md5(id::text || $1) LIMIT 1", str(self.chance.integers(0, 9**9))
            )
            action = (
                "insert" if row_id is None else self.chance.choice(["insert"] * 3 + ["edit", "blank", "move", "delete"])
            )
            if action == "insert":
                unique = "" if kind.name != "topic" else f" {self.chance.integers(0, 9**9)}"
                await plant(self.psql, kind, self.dataset().id, self.text() + unique)
            elif action == "edit" and kind.name != "topic":
                await edit(self.psql, kind, row_id, self.text())
            elif action == "blank" and kind.name != "topic":
                await edit(self.psql, kind, row_id, "  ")
            elif action == "move":
                await self.psql.execute(
                    f"UPDATE {kind.table} SET dataset_id = $2 WHERE id = $1", row_id, self.dataset().id
                )
            elif action == "delete":
                await self.psql.execute(f"DELETE FROM {kind.table} WHERE id = $1", row_id)

    async def embed(self) -> None:
        """Embed everything that is pending, in both."""
        for dataset in self.datasets:
            await embed_dataset(self.resources, dataset.id)

    async def settle(self) -> Oracle:
        """Wait until the mirrors are what the database says, and read that."""
        for dataset in self.datasets:
            await until_true(self.resources, dataset)
        return await Oracle.read(self.resources.database, WIDTH)

    async def ask(self, oracle: Oracle) -> None:
        """Ask every engine one random question."""
        text = self.text()
        query = expected_vector(MODEL, text, WIDTH)
        dataset = self.dataset() if self.chance.random() < 0.5 else None
        kind = EMBEDDABLES[int(self.chance.integers(0, len(EMBEDDABLES)))] if self.chance.random() < 0.6 else None
        row_ids: list[int] | None = None
        if kind is not None and self.chance.random() < 0.5:
            mine = oracle.row_ids[oracle.kinds == kind.kind]
            row_ids = self.chance.choice(mine, int(self.chance.integers(0, len(mine) + 1)), replace=False).tolist()
            row_ids.append(10**9)
        k = int(self.chance.choice([1, 3, 10, 50, 1000]))
        allowed = oracle.allowed(
            [kind.kind] if kind else [e.kind for e in EMBEDDABLES],
            [dataset.id] if dataset else [d.id for d in self.datasets],
            row_ids,
        )
        asked = {"dataset": dataset.slug if dataset else None, "kind": kind.name if kind else None, "k": k}
        for engine, tolerance in ENGINES:
            answer = await search(self.resources, text, engine=engine, row_ids=row_ids, **asked)  # type: ignore[arg-type]
            try:
                assert answer.engine == ("exact" if engine == "exact" and answer.hits else answer.engine)
                assert engine == "exact" or answer.engine == "mirror", answer.engine
                oracle.judge(answer.hits, query, allowed, k, tolerance)
            except AssertionError as error:
                error.add_note(f"engine {engine}, text {text!r}, {asked}, row ids {row_ids}")
                raise


@pytest.fixture
async def pair(resources: Resources, dataset: DatasetRef) -> list[DatasetRef]:
    """Make two datasets."""
    async with resources.database.transaction() as tx:
        return [dataset, await datasets.ensure(tx, "sea", "notes")]


@pytest.mark.parametrize("seed", SEEDS)
async def test_three_engines_agree_after_every_edit(
    resources: Resources, pair: list[DatasetRef], psql: Any, seed: int
) -> None:
    async with worker(resources, mirror_poll_seconds=0.02) as one:
        scene = Scene(one, psql, pair, seed)
        await scene.change(150)
        await scene.embed()
        for number in range(ROUNDS):
            await scene.change(20)
            if number % 2:  # else edited rows still have the vector of their old text, and new ones have none
                await scene.embed()
            oracle = await scene.settle()
            for _ in range(QUESTIONS):
                try:
                    await scene.ask(oracle)
                except AssertionError as error:
                    error.add_note(f"seed {seed}, round {number}")
                    raise
            if number == 1:
                for dataset in pair:
                    await one.mirrors.rebuild(dataset, "compact was asked for")


CENTRES = np.random.default_rng(1).standard_normal((300, WIDTH))


def clustered(chance: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Return vectors `(count, 32)` float32 of length 1 around 300 centres, some much fuller than others."""
    chosen = np.minimum(chance.geometric(0.01, count), 300) - 1
    rows = CENTRES[chosen] + 0.5 * chance.standard_normal((count, WIDTH))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("factory", "count"), [(None, 21_000), ("HNSW32,SQfp16", 6_000)], ids=["lists", "graph"])
async def test_an_index_over_many_vectors_finds_nearly_all_with_and_without_filters(
    resources: Resources, dataset: DatasetRef, factory: str | None, count: int
) -> None:
    seed = 11
    chance = np.random.default_rng(seed)
    rows = clustered(chance, count)
    provider = await resources.provider()
    # PostgreSQL's own index would take longer to fill than all the rest, and is not asked here
    await hnsw.drop_indexes(resources.database, provider.space.id)
    await stored(resources, dataset, [f"row {n}" for n in range(count)], rows)
    async with process(resources, mirror_index=factory) as one:
        mirror = one.mirrors.mirror(dataset)
        await mirror.rebuild("there was no file")
        assert mirror.index is not None
        assert mirror.index.snapshot.main.index is not mirror.index.snapshot.main.storage, "not flat"
        # then a part of it goes, whole regions of it, and something comes
        async with resources.database.transaction() as tx:
            await tx.execute("DELETE FROM messages WHERE id % 10 = 3 OR id BETWEEN 1000 AND 2000")
        await stored(resources, dataset, [f"new {n}" for n in range(500)], clustered(chance, 500))
        await mirror.catch_up()
        oracle = await Oracle.read(one.database, WIDTH)
        for share in (None, 0.5, 0.05, 0.005):
            found = wanted = 0
            for query in clustered(chance, 25):
                row_ids = None if share is None else oracle.row_ids[chance.random(len(oracle.row_ids)) < share].tolist()
                condition = None if row_ids is None else check(OneOf(field="id", values=tuple(row_ids)), [MESSAGE], ())
                scope = Scope([MESSAGE], [dataset], condition=condition)
                hits = (await searching.nearest(one, query, scope, 10, "mirror")).hits
                allowed = oracle.allowed([MESSAGE.kind], [dataset.id], row_ids)
                good, there = oracle.recall(hits, query, allowed, 10)
                assert len(hits) == there
                found, wanted = found + good, wanted + there
            assert found / wanted >= 0.95, f"recall {found / wanted:.3f}, filter {share}, seed {seed}"
