"""What a caller may want of hits: one a document, a least similarity, the chunks around, the words marked."""

from typing import Any

import pytest

from evervec.errors import Refused
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.details import Details
from evervec.pipeline.search.search import search
from evervec.store.datasets import DatasetRef
from tests.pipeline.mirrors.mirroring import stored


async def chunked(psql: Any, resources: Resources, dataset: DatasetRef, documents: int, chunks: int) -> None:
    """Documents of several chunks each, embedded, with their words."""
    for number in range(documents):
        document = await psql.fetchval(
            "INSERT INTO documents (dataset_id, uri) VALUES ($1, $2) RETURNING id", dataset.id, f"docs/{number}.md"
        )
        await psql.execute(
            "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text) "
            "SELECT $1, $2, n, format('content %s of %s', n, $3::int), format('part %s of document %s', n, $3::int) "
            "FROM generate_series(0, $4::int - 1) n",
            dataset.id,
            document,
            number,
            chunks,
        )
    await embed_dataset(resources, dataset.id)


async def test_by_document_each_has_its_best_chunk_and_there_are_never_fewer_than_there_are(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await chunked(psql, resources, dataset, documents=12, chunks=9)
    every = (await search(resources, "part 3 of document 7", mode="vector", k=1000)).hits
    best: dict[str, int] = {}
    for hit in every:
        assert hit.place is not None
        best.setdefault(hit.place.document, hit.id)
    for k in (1, 5, 12, 50):
        answer = await search(resources, "part 3 of document 7", mode="vector", k=k, details=Details(by_document=True))
        assert [hit.id for hit in answer] == list(best.values())[:k]


async def test_a_least_similarity_leaves_out_what_is_further(resources: Resources, dataset: DatasetRef) -> None:
    await stored(resources, dataset, [f"text {n}" for n in range(200)])
    every = (await search(resources, "text 17", mode="vector", k=200)).hits
    least = every[40].score
    for mode in ("vector", "hybrid"):
        answer = await search(resources, "text 17", mode=mode, k=100, details=Details(least_similarity=least))
        assert {hit.id for hit in answer} <= {hit.id for hit in every[:41]}
    answer = await search(resources, "text 17", mode="vector", k=100, details=Details(least_similarity=least))
    assert {hit.id for hit in answer} == {hit.id for hit in every[:41]}


async def test_the_chunks_around_a_chunk_come_with_it(resources: Resources, dataset: DatasetRef, psql: Any) -> None:
    await chunked(psql, resources, dataset, documents=3, chunks=5)
    await stored(resources, dataset, ["a message stands alone"])
    for part, before, after in ((0, [], [1, 2]), (2, [0, 1], [3, 4]), (4, [2, 3], [])):
        answer = await search(resources, f"part {part} of document 1", mode="vector", k=1, details=Details(context=2))
        around = answer[0].around
        assert around is not None
        assert (around.before, around.after) == (
            [f"content {n} of 1" for n in before],
            [f"content {n} of 1" for n in after],
        )
    answer = await search(resources, "a message stands alone", mode="vector", k=1, details=Details(context=2))
    assert answer[0].around is None


async def test_snippets_mark_the_words_as_they_stand_in_the_text(resources: Resources, dataset: DatasetRef) -> None:
    long = " ".join(f"filler{n}" for n in range(200))
    await stored(resources, dataset, [f"{long} the workers were crashing again {long}", "nothing of it"])
    await embed_dataset(resources, dataset.id)
    for mode in ("vector", "hybrid"):
        answer = await search(resources, "crash of a worker", mode=mode, details=Details(snippets=True))
        snippets = {hit.text[:7]: hit.snippet for hit in answer}
        found = snippets["filler0"]
        assert found is not None and "the «workers» were «crashing» again" in found and len(found) < 1_000
        assert snippets["nothing"] == "nothing of it"


async def test_an_answer_explains_itself(resources: Resources, dataset: DatasetRef) -> None:
    await stored(resources, dataset, ["E0382 is about borrowing", *(f"the queue of worker {n}" for n in range(300))])
    await embed_dataset(resources, dataset.id)
    answer = await search(resources, "E0382 queue", details=Details(explain=True))
    assert answer.explanation is not None
    assert [(one.word, one.language, one.leads) for one in answer.explanation.words] == [
        ("e0382", "english", True),
        ("queue", "english", False),
    ]
    assert set(answer.explanation.stages) == {"plan", "embed", "search", "details"}
    assert sum(answer.explanation.stages.values()) <= answer.milliseconds
    ranks = answer[0].ranks
    assert ranks is not None and ranks.words == 1
    assert (await search(resources, "E0382")).explanation is None


@pytest.mark.parametrize("wrong", [Details(context=-1), Details(context=21), Details(least_similarity=1.5)])
async def test_what_can_not_be_is_refused(resources: Resources, dataset: DatasetRef, wrong: Details) -> None:
    with pytest.raises(Refused, match="must be between"):
        await search(resources, "anything", details=wrong)
