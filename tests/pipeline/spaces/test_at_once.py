"""Flips while others search, claim, write, build and flip: no search fails, is empty or mixes spaces, and no row is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from tests.pipeline.spaces.spaced import another, built, filled, require_no_more, require_true, settled, traces, write

TEXTS = [f"row {n}" for n in range(40)]


@asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:
    """Run something again and again while inside, at least once."""
    finish = asyncio.Event()

    async def repeated() -> None:
        once = True
        while once or not finish.is_set():
            await work()
            once = False

    task = asyncio.create_task(repeated())
    try:
        yield
    finally:
        finish.set()
        await task


async def test_searches_go_on_through_flips_and_never_mix_two_spaces(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await write(resources, dataset, *TEXTS)
    await settled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    answers = []

    async def ask() -> None:
        answer = await search(resources, "row 7", k=100)
        # each row once, the same one first, with the score of one model alone
        assert sorted(hit.text for hit in answer.hits) == sorted(TEXTS)
        assert (answer.hits[0].text, answer.merged_by, list(answer.unanswered)) == ("row 7", "score", [])
        assert answer.hits[0].score == pytest.approx(1, abs=1e-3)
        answers.append(answer)

    async with beside(ask), beside(ask), beside(ask):
        for _ in range(4):
            await flip.activate(resources)
            await flip.roll_back(resources)
        await flip.activate(resources)
    assert len(answers) >= 3
    await require_true(psql)


async def test_what_is_written_and_claimed_during_flips_is_embedded_in_both_spaces(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await write(resources, dataset, *TEXTS)
    await settled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    written = list[str]()

    async def put() -> None:
        written.append(f"written {len(written)}")
        await write(resources, dataset, written[-1])
        await psql.execute("UPDATE messages SET content = content || '!' WHERE content = $1", f"row {len(written)}")

    async def embed() -> None:
        await embed_dataset(resources, dataset.id)

    # the writer ends first: who embeds goes on while there is something to do
    async with beside(embed), beside(embed), beside(put):
        for _ in range(3):
            await flip.activate(resources)
            await flip.roll_back(resources)
    await settled(resources, dataset)
    await require_true(psql)
    found = {hit.text for hit in (await search(resources, "written 0", k=500)).hits}
    assert set(written) <= found
    assert len(found) == len(TEXTS) + len(written)


async def test_a_dataset_is_flipped_though_the_new_space_is_always_a_little_behind(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await write(resources, dataset, *TEXTS)
    await settled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    wide.pace.delay = 0.3
    written = list[str]()

    async def put() -> None:
        written.append(f"written {len(written)}")
        await write(resources, dataset, written[-1])
        await embed_dataset(resources, dataset.id)

    async with beside(put):
        await flip.activate(resources)
    wide.pace.delay = 0
    await settled(resources, dataset)
    await require_true(psql)
    assert set(written) <= {hit.text for hit in (await search(resources, "row 1", k=1000)).hits}


async def test_of_two_activations_at_once_one_does_it_and_the_other_is_told(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    done = await asyncio.gather(flip.activate(resources), flip.activate(resources), return_exceptions=True)
    (refused,) = [one for one in done if isinstance(one, BaseException)]
    assert isinstance(refused, Refused) and "No dataset builds another space" in str(refused)
    with pytest.raises(Refused, match="Dataset log builds no other space"):
        await flip.activate(resources, dataset="log")
    await flip.roll_back(resources)
    with pytest.raises(Refused, match="No dataset has a space to go back to"):
        await flip.roll_back(resources)


async def test_two_datasets_build_one_space_and_each_goes_its_way(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    other = await another(resources)
    await write(resources, dataset, "one", "two")
    await write(resources, other, "three", "two")
    await settled(resources, dataset, other)
    before = await traces(psql)
    assert len(await start(resources, BuildOptions("wide"))) == 2
    await asyncio.gather(fill(resources), fill(resources))
    # an equal text is sent once a space, also from another dataset of the project
    assert wide.texts_sent()["two"] == 1
    await flip.activate(resources, dataset="other")
    await removal.drop(resources, dataset="log")
    await removal.purge(resources)
    await require_true(psql)
    assert (await search(resources, "three", k=1, dataset="other")).hits[0].text == "three"
    assert await psql.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'embeddings_hnsw_message_2'") == 1
    await flip.roll_back(resources, dataset="other")
    await removal.drop(resources, dataset="other")
    await removal.purge(resources)
    await require_true(psql)
    require_no_more(await traces(psql), before)


async def test_a_rollback_while_another_space_is_built_is_refused(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider
) -> None:
    await filled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    await flip.activate(resources)
    await start(resources, BuildOptions("fake", template="{text}"))
    with pytest.raises(Refused, match="--state next"):
        await flip.roll_back(resources)
    await fill(resources)
    await flip.activate(resources)
    # of the three, the oldest is removed, and the second one is kept
    await removal.purge(resources)
    async with resources.database.read() as tx:
        assert [(one.space_id, one.state) for one in await spaces.others(tx)] == [(2, spaces.PREVIOUS)]


async def test_a_space_whose_removal_has_not_ended_is_not_built_again(
    resources: Resources, dataset: DatasetRef, wide: FakeProvider, psql: Any
) -> None:
    await filled(resources, dataset)
    await built(resources, BuildOptions("wide"))
    await removal.drop(resources)
    with pytest.raises(Refused, match="are being removed"):
        await start(resources, BuildOptions("wide"))
    await removal.purge(resources)
    await start(resources, BuildOptions("wide"))
    await settled(resources, dataset)
    await require_true(psql)
