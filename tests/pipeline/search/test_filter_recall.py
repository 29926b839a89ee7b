"""Recall under filters of every share, related to the query and not, from the mirror and from HNSW."""

from typing import Any

import numpy as np
import pytest

from evervec.domain.conditions.tree import Comparison, Condition
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import postgres
from evervec.pipeline.search import scope as scopes
from evervec.pipeline.search import search as searching
from evervec.pipeline.search.scope import Within
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import MESSAGE
from tests.parity.oracle import Oracle
from tests.parity.test_parity import clustered
from tests.pipeline.mirrors.mirroring import WIDTH, stored, until_true, worker

SHARES = (0.5, 0.05, 0.005, 0.0005)


@pytest.mark.slow
async def test_filters_of_every_share_have_full_recall(
    resources: Resources, dataset: DatasetRef, psql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each condition once related to the query (the rows around one place), once not (rows at random)."""
    chance = np.random.default_rng(5)
    vectors = clustered(chance, 20_000)
    await stored(resources, dataset, [f"row {n}" for n in range(len(vectors))], vectors)
    centre = clustered(chance, 1)[0]
    await psql.execute("CREATE TEMP TABLE places (id bigint, nearness bigint, chance float8)")
    ids = [row["id"] for row in await psql.fetch("SELECT row_id AS id FROM embeddings ORDER BY row_id")]
    nearness = np.argsort(np.argsort(-(vectors @ centre)))
    await psql.copy_records_to_table(
        "places", records=list(zip(ids, nearness.tolist(), chance.random(len(ids)).tolist(), strict=True))
    )
    # what a condition can name: the place in the order of the nearness to a centre, and one at random
    await psql.execute(
        "UPDATE messages m SET author = lpad(p.nearness::text, 5, '0'), chat = lpad((p.chance * 100000)::int::text, 6, '0') "
        "FROM places p WHERE p.id = m.id"
    )
    # few rows count as many here, so that the graph is asked, too
    monkeypatch.setattr(postgres, "EXACT_SEARCH_BELOW", 500)
    async with worker(resources, mirror_poll_seconds=0.05) as one:
        await until_true(one, dataset)
        oracle = await Oracle.read(one.database, WIDTH)
        for share in SHARES:
            for field, last in (("author", f"{int(share * 20_000):05d}"), ("chat", f"{int(share * 100_000):06d}")):
                condition = Comparison(op="lt", field=field, value=last)
                allowed_ids = [
                    row["id"] for row in await psql.fetch(f"SELECT id FROM messages WHERE {field} < $1", last)
                ]
                allowed = oracle.allowed([MESSAGE.kind], [dataset.id], allowed_ids)
                for engine in ("auto", "pgvector"):
                    await recall_of(one, oracle, condition, allowed, engine, share, chance, centre)


async def recall_of(
    resources: Resources,
    oracle: Oracle,
    condition: Condition,
    allowed: Any,
    engine: str,
    share: float,
    chance: np.random.Generator,
    centre: Any,
) -> None:
    """Ask near the centre and far from it: whole where rows are few, nearly whole else, and never fewer than there are."""
    async with resources.database.read() as tx:
        scope = await scopes.resolve(tx, Within(kind="message", where=condition))
    found = wanted = 0
    near = [centre + 0.3 * row for row in clustered(chance, 5)]
    for query in [*near, *clustered(chance, 5)]:
        answer = await searching.nearest(resources, np.asarray(query, np.float32), scope, 10, engine)
        good, there = oracle.recall(answer.hits, query, allowed, 10)
        assert len(answer.hits) == there, (engine, answer.engine, share, condition)
        assert all(allowed[place] for place in oracle.places(answer.hits))
        found, wanted = found + good, wanted + there
    least = 1.0 if share <= 0.005 else 0.98
    assert found >= least * wanted, f"recall {found / wanted:.3f} by {engine} for {share:.2%} of {condition}"
