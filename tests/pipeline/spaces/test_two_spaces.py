"""One search over datasets of two spaces: the question is embedded once a space, and the answers are merged by rank."""

from typing import Any

from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.duplicates import duplicates
from evervec.pipeline.search.search import similar
from evervec.pipeline.spaces import flip
from evervec.pipeline.spaces.build import BuildOptions
from evervec.store.datasets import DatasetRef
from tests.fakes.server import FakeProvider
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import another, built, settled, write


async def test_the_question_is_embedded_once_a_space_and_each_space_gives_its_best_first(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, wide: FakeProvider
) -> None:
    other, third = await another(resources), await another(resources, "third")
    for one in (dataset, other, third):
        await write(resources, one, f"of {one.slug}", "the same text", "row of all")
    await settled(resources, dataset, other, third)
    await built(resources, BuildOptions("wide"), dataset="other")
    await flip.activate(resources, dataset="other")
    fake.requests.clear()
    wide.requests.clear()
    answer = await search(resources, "the same text", k=9)
    assert (fake.texts_sent()["the same text"], wide.texts_sent()["the same text"]) == (1, 1)
    assert (answer.merged_by, list(answer.unanswered)) == ("rank", [])
    assert len(answer.hits) == 9
    # two datasets share a space: their three best follow each other, between those of the other space
    assert [hit.dataset == "other" for hit in answer.hits[:4]] == [False, True, False, True]
    assert {hit.text for hit in answer.hits[:3]} == {"the same text"}
    only = await search(resources, "the same text", k=9, dataset="other")
    assert (only.merged_by, len(only.hits)) == ("score", 3)
    assert {hit.dataset for hit in (await search(resources, "the same text", k=20)).hits} == {"log", "other", "third"}


async def test_what_is_similar_or_double_is_looked_for_in_one_space_alone(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    other = await another(resources)
    for one in (dataset, other):
        await write(resources, one, "double", f"of {one.slug}")
        await psql.execute(
            "INSERT INTO messages (dataset_id, chat, external_id, author, content) VALUES ($1, 'c', '2', 'dev', 'double')",
            one.id,
        )
    await settled(resources, dataset, other)
    await built(resources, BuildOptions("wide"), dataset="other")
    await flip.activate(resources, dataset="other")
    row_id = await psql.fetchval("SELECT id FROM messages WHERE dataset_id = $1 ORDER BY id LIMIT 1", other.id)
    near = await similar(resources, "message", row_id, k=10)
    assert {hit.dataset for hit in near.hits} == {"other"}
    pairs = await duplicates(resources, threshold=0.99)
    # one pair in each dataset; a pair across two spaces can not be compared
    assert len(pairs) == 2 and {pair.text for pair in pairs} == {"double"}


async def test_a_filter_on_rows_reaches_the_rows_of_each_space(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    other = await another(resources)
    await write(resources, dataset, "one", "two")
    await write(resources, other, "three", "four")
    await settled(resources, dataset, other)
    await built(resources, BuildOptions("wide"), dataset="other")
    await flip.activate(resources, dataset="other")
    await embed_dataset(resources, other.id)
    ids = [row[0] for row in await psql.fetch("SELECT id FROM messages WHERE content IN ('two', 'three')")]
    answer = await search(resources, "two", k=5, kind="message", row_ids=ids)
    assert {hit.text for hit in answer.hits} == {"two", "three"}
    assert answer.hits[0].text in ("two", "three") and answer.engine == "exact"
