"""Another space is filled beside the one that is searched, searched instead of it, rolled back and dropped."""

from typing import Any

import pytest

from evervec.errors import Refused
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, removal
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store.datasets import DatasetRef
from evervec.store.spaces import spaces
from tests.fakes.server import FakeProvider
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import WIDE, another, built, filled, searched_width, write


async def test_the_next_space_is_searched_once_it_is_whole_and_the_former_one_comes_back(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    (begun,) = await start(resources, BuildOptions("wide"))
    with pytest.raises(Refused, match="is not filled yet"):
        await flip.activate(resources)
    await fill(resources)
    assert await searched_width(resources, "one") == {32}
    (flipped,) = await flip.activate(resources)
    assert (flipped.dataset, "wider" in flipped.space) == ("log", True)
    assert (await search(resources, "one", k=1)).hits[0].text == "one"
    assert await searched_width(resources, "one") == {WIDE}
    hit = (await search(resources, "Another about lakes and ponds.", k=1, kind="chunk")).hits[0]
    assert hit.place is not None and hit.place.document == "page"
    # both are written to: what changes now is there after the rollback, too
    await write(resources, dataset, "four")
    await embed_dataset(resources, dataset.id)
    await fill(resources)
    await flip.roll_back(resources)
    assert (await search(resources, "four", k=1)).hits[0].text == "four"
    assert await searched_width(resources, "four") == {32}
    await flip.activate(resources)
    await removal.drop(resources)
    await removal.purge(resources)
    assert await psql.fetchval("SELECT count(*) FROM dataset_spaces") == 0
    assert await psql.fetchval("SELECT array_agg(DISTINCT space_id) FROM embeddings") == [begun.space_id]
    assert await psql.fetchval("SELECT array_agg(DISTINCT space_id) FROM chunks") == [begun.space_id]
    assert (await search(resources, "four", k=1)).hits[0].text == "four"


async def test_a_build_that_is_given_up_leaves_nothing(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    before = await psql.fetchval("SELECT count(*) FROM embeddings")
    await built(resources, BuildOptions("wide"))
    await removal.drop(resources, dataset="log")
    with pytest.raises(Refused, match="no space to drop"):
        await removal.drop(resources, dataset="log")
    await removal.purge(resources)
    assert await psql.fetchval("SELECT count(*) FROM embeddings") == before
    assert await psql.fetchval("SELECT count(*) FROM chunk_work") == 0
    assert await psql.fetchval("SELECT count(*) FROM pg_constraint WHERE conname LIKE 'embeddings_width_%'") == 1


async def test_one_dataset_is_flipped_and_a_search_over_both_is_merged_by_rank(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    other = await another(resources)
    await write(resources, other, "one", "somewhere else")
    await embed_dataset(resources, other.id)
    await built(resources, BuildOptions("wide"), dataset="other")
    await flip.activate(resources, dataset="other")
    answer = await search(resources, "one", k=4)
    assert (answer.merged_by, list(answer.unanswered)) == ("rank", [])
    assert {(hit.dataset, hit.text) for hit in answer.hits[:2]} == {("log", "one"), ("other", "one")}
    await wide.__aexit__(None, None, None)
    answer = await search(resources, "one", k=4)
    assert {hit.dataset for hit in answer.hits} == {"log"}
    assert "river/other" in answer.unanswered[0]


async def test_a_failed_text_is_missing_until_somebody_allows_it(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    await psql.execute(
        "UPDATE embeddings SET embedding = NULL, failed_hash = content_hash WHERE space_id = 2 AND kind = 1 AND row_id = 1"
    )
    with pytest.raises(Refused, match="1 rows have no vector"):
        await flip.activate(resources)
    await flip.activate(resources, allow_missing=1)


async def test_another_template_costs_only_the_texts_that_it_changes(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await filled(resources, dataset)
    sent = len(fake.requests)
    await start(resources, BuildOptions("fake", template="{text}"))
    await fill(resources)
    again = [text for request in fake.requests[sent:] for text in request.texts]
    assert again and not {"one", "two", "three"} & set(again)
    await flip.activate(resources)
    assert (await search(resources, "one", k=1)).hits[0].text == "one"


async def test_a_second_build_of_another_space_is_refused(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    assert await start(resources, BuildOptions("wide")) == []
    with pytest.raises(Refused, match="is building"):
        await start(resources, BuildOptions("fake", template="{text}"))
    async with resources.database.read() as tx:
        assert [one.state for one in await spaces.others(tx)] == ["next"]
