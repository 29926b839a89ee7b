"""A flip is refused while rows would be lost by it, and says how many; what fails or waits in one space holds up no other."""

from typing import Any

import pytest

from evervec.errors import Refused
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, progress, removal
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import built, filled, page, recovered, require_true, settled, write


async def given_up(resources: Resources, psql: Any) -> None:
    """Fill until what fails was given up; what a row has to wait for is over at once."""
    for _ in range(8):
        await fill(resources)
        await psql.execute("UPDATE embed_work SET not_before = now()")


async def test_a_text_that_fails_in_the_new_space_alone_is_counted(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    wide.always(lambda text: text == "two", Fault.NAN_500)
    await start(resources, BuildOptions("wide"))
    await given_up(resources, psql)
    (found,) = await progress.builds(resources)
    assert (found.failed, found.pending) == (1, 0)
    with pytest.raises(Refused, match=r"1 rows have no vector in .*wider.*--allow-missing 1"):
        await flip.activate(resources)
    assert "two" in {hit.text for hit in (await search(resources, "two", k=10)).hits}
    await flip.activate(resources, allow_missing=1)
    texts = {hit.text for hit in (await search(resources, "a question", k=10, kind="message")).hits}
    assert texts == {"one", "three"}
    wide.heal()
    await psql.execute("UPDATE messages SET content = 'two again' WHERE content = 'two'")
    await settled(resources, dataset)
    await require_true(psql)


async def test_a_text_that_failed_in_both_spaces_is_not_lost_by_the_flip(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, wide: FakeProvider, psql: Any
) -> None:
    for one in (fake, wide):
        one.always(lambda text: text == "two", Fault.NAN_500)
    await filled(resources, dataset)
    for _ in range(8):
        await embed_dataset(resources, dataset.id)
        await psql.execute("UPDATE embed_work SET not_before = now()")
    await start(resources, BuildOptions("wide"))
    await given_up(resources, psql)
    await flip.activate(resources)
    assert await psql.fetchval("SELECT count(*) FROM embedding_status WHERE embedding_status = 'FAILED'") == 1


async def test_what_waits_is_counted_in_rows_and_documents(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    await settled(resources, dataset)
    wide.always(None, Fault.BUSY_503)
    await write(resources, dataset, "four", "five")
    await page(resources, dataset, "# More\n\nA page.\n", "more")
    await embed_dataset(resources, dataset.id)
    with pytest.raises(Refused, match="3 rows have no vector"):
        await flip.activate(resources)
    with pytest.raises(Refused, match="3 rows have no vector"):
        await flip.activate(resources, allow_missing=2)
    await flip.activate(resources, allow_missing=3)
    await recovered(wide, psql)
    await settled(resources, dataset)
    await require_true(psql)


async def test_a_document_without_chunks_in_the_new_space_keeps_its_text(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    await settled(resources, dataset)
    await page(resources, dataset, "# More\n\nA page about salt.\n", "more")
    await psql.execute("DELETE FROM chunks WHERE space_id = 2")
    await psql.execute("INSERT INTO chunk_work SELECT 2, id FROM documents ON CONFLICT DO NOTHING")
    # as if the worker had ended before it chunked them, and somebody did not want to wait
    await psql.execute("UPDATE datasets SET space_id = 2")
    await psql.execute("DELETE FROM dataset_spaces")
    await psql.execute("INSERT INTO dataset_spaces (dataset_id, space_id, state) VALUES ($1, 1, 'dropped')", dataset.id)
    await removal.purge(resources)
    await settled(resources, dataset)
    await removal.purge(resources)
    assert await psql.fetchval("SELECT array_agg(DISTINCT space_id) FROM chunks") == [2]
    assert await psql.fetchval("SELECT count(*) FROM chunks WHERE content LIKE '%salt%'") == 1
    await require_true(psql)


async def test_live_rows_are_embedded_while_the_provider_of_the_new_space_is_down(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    await start(resources, BuildOptions("wide"))
    wide.always(None, Fault.RESET)
    await fill(resources)
    await write(resources, dataset, "fresh")
    await embed_dataset(resources, dataset.id)
    assert (await search(resources, "fresh", k=1)).hits[0].text == "fresh"
    assert await psql.fetchval("SELECT count(*) FROM embeddings WHERE space_id = 2 AND embedding IS NOT NULL") == 0
    await recovered(wide, psql)
    await settled(resources, dataset)
    await require_true(psql)


async def test_the_provider_that_a_build_names_embeds_for_it_and_for_the_dataset_afterwards(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    async with FakeProvider(dims=wide.dims) as tenant:
        # the same model at another place, with a key of its own
        await providers.add(
            resources, ProviderDraft("tenant", "ollama", base_url=tenant.url, model="wider"), activate=False
        )
        await providers.add(
            resources, ProviderDraft("wide", "ollama", base_url=wide.url, model="wider"), activate=False
        )
        await filled(resources, dataset)
        wide.requests.clear()
        tenant.requests.clear()
        await built(resources, BuildOptions("tenant"))
        await flip.activate(resources)
        await write(resources, dataset, "later")
        await embed_dataset(resources, dataset.id)
        assert (await search(resources, "a question", k=1)).hits
        assert {"one", "two", "three", "later", "a question"} <= set(tenant.texts_sent())
        assert not {"one", "later", "a question"} & set(wide.texts_sent())
