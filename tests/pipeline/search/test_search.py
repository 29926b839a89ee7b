"""Search: right hits, never silently fewer than there are, and an answer that says what it is true at."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from evervec.domain.extraction.message import IncomingMessage
from evervec.errors import Refused, UnknownDatasetError, UnknownRowError
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset, never
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import postgres
from evervec.pipeline.search.duplicates import duplicates
from evervec.pipeline.search.search import similar
from evervec.pipeline.upkeep.sweep import fill_spaces
from evervec.store import datasets, messages
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.vectors import expected_vector
from tests.pipeline.search.meaning import search


async def fill(resources: Resources, dataset: DatasetRef, texts: list[str]) -> list[int]:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    incoming = [IncomingMessage("telegram:1", str(i), "dev", at, text) for i, text in enumerate(texts, 1)]
    async with resources.database.transaction() as tx:
        saved = await messages.upsert(tx, dataset.id, incoming)
    await embed_dataset(resources, dataset.id)
    return saved.created


async def test_the_text_itself_is_the_nearest_hit(resources: Resources, dataset: DatasetRef) -> None:
    ids = await fill(resources, dataset, [f"text {i}" for i in range(50)])
    answer = await search(resources, "text 17", k=3)
    assert (answer.hits[0].id, answer.hits[0].kind, answer.hits[0].dataset) == (ids[17], "message", "log")
    assert answer.hits[0].score == pytest.approx(1.0, abs=1e-3)
    assert answer.engine == "exact"
    assert answer.pending_in_scope == 0
    assert int(answer.watermark) > 0


async def test_hnsw_exact_and_numpy_agree(resources: Resources, dataset: DatasetRef) -> None:
    texts = [f"parity text {i}" for i in range(300)]
    ids = await fill(resources, dataset, texts)
    stored = np.stack([expected_vector("embedder", text, 32) for text in texts])
    for question in ("parity text 5", "another question", "a third one"):
        cosine = stored @ expected_vector("embedder", question, 32)
        wanted = [ids[i] for i in np.argsort(-cosine)[:10]]
        exact = await search(resources, question, k=10, engine="exact")
        assert [hit.id for hit in exact.hits] == wanted
        np.testing.assert_allclose([hit.score for hit in exact.hits], np.sort(cosine)[::-1][:10], atol=1e-5)
        hnsw = await search(resources, question, k=10, engine="pgvector")
        assert len(set(wanted) & {hit.id for hit in hnsw.hits}) >= 9


async def test_few_rows_are_compared_one_by_one_and_many_through_the_graph(
    resources: Resources, dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(resources, dataset, [f"text {i}" for i in range(60)])
    for below, engine in ((60, "exact"), (59, "pgvector")):
        monkeypatch.setattr(postgres, "EXACT_SEARCH_BELOW", below)
        for scope in (None, "log"):
            answer = await search(resources, "text 17", dataset=scope, k=3)
            assert (answer.engine, answer.hits[0].text) == (engine, "text 17")


async def test_a_narrow_filter_never_comes_back_short(resources: Resources, dataset: DatasetRef) -> None:
    await fill(resources, dataset, [f"crowd {i}" for i in range(400)])
    async with resources.database.transaction() as tx:
        small = await datasets.ensure(tx, "river", "small")
    await fill(resources, small, [f"few {i}" for i in range(7)])
    answer = await search(resources, "crowd 1", dataset="small", k=10)
    assert len(answer.hits) == 7
    assert {hit.dataset for hit in answer.hits} == {"small"}
    assert answer.engine == "exact"


async def test_an_answer_says_how_many_rows_in_its_scope_still_wait(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await fill(resources, dataset, [f"text {i}" for i in range(5)])
    await psql.execute("UPDATE messages SET content = 'edited' WHERE external_id = '1'")
    answer = await search(resources, "text 0", k=5)
    assert answer.pending_in_scope == 1
    assert [hit.stale for hit in answer.hits].count(True) == 1


async def test_rows_of_a_deleted_dataset_are_not_found(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await fill(resources, dataset, ["secret"])
    await psql.execute("UPDATE datasets SET deleted_at = now()")
    assert (await search(resources, "secret")).hits == []
    with pytest.raises(UnknownDatasetError):
        await search(resources, "secret", dataset="log")


async def test_similar_leaves_the_row_itself_out(resources: Resources, dataset: DatasetRef) -> None:
    ids = await fill(resources, dataset, ["twin", "twin", "stranger"])
    answer = await similar(resources, "message", ids[0], k=5)
    assert answer.hits[0].id == ids[1]
    assert ids[0] not in {hit.id for hit in answer.hits}
    with pytest.raises(UnknownRowError):
        await similar(resources, "message", 10**9)


async def test_duplicates_come_as_pairs_once(resources: Resources, dataset: DatasetRef) -> None:
    ids = await fill(resources, dataset, ["twin", "twin", "stranger", "other stranger"])
    pairs = await duplicates(resources, dataset="log", threshold=0.99)
    assert [(pair.id, pair.other_id) for pair in pairs] == [(ids[0], ids[1])]


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "  "},
        {"text": "x", "k": 0},
        {"text": "x", "k": 1001},
        {"text": "x", "kind": "mesage"},
        {"text": "x", "engine": "faiss"},
    ],
)
async def test_a_question_that_can_not_be_asked_is_refused(resources: Resources, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        await search(resources, **wrong)


async def test_another_width_is_never_mixed_in(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await fill(resources, dataset, ["one", "two"])
    added = await providers.add(resources, ProviderDraft("local", "local"))
    assert not added.space.active
    with pytest.raises(Refused, match="spaces build --provider local"):
        await providers.use(resources, "local")
    used = await providers.use(resources, "local", reembed=True)
    assert used.space.active
    # the former space is searched until the new one is whole
    assert (await search(resources, "one", k=1)).hits[0].text == "one"
    await fill_spaces(resources, never)
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status LIMIT 1") == "READY"
    found = (
        "SELECT DISTINCT vector_dims(e.embedding) FROM embeddings e JOIN datasets d USING (space_id) WHERE d.id = $1"
    )
    assert await psql.fetchval(found, dataset.id) == 256
    assert (await search(resources, "one", k=1)).hits[0].text == "one"
