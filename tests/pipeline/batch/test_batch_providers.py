"""Datasets of several providers: each dataset's rows are sent to the provider that embeds it, and to no other."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from evervec.errors import AuthError, NoBatchError
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.pipeline.spaces.flip import activate
from evervec.pipeline.upkeep import backfill, planned_backfill
from evervec.pipeline.upkeep.sweep import embed_waiting
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import NOBODYS, add, batched, numbered, planted, states, to_the_end

OURS, THEIRS = numbered(12, "ours"), numbered(15, "theirs")


@dataclass
class Scene:
    """Two datasets with rows, of two providers: the default one has a batch API."""

    resources: Resources
    default: FakeProvider
    other: FakeProvider
    ours: DatasetRef
    theirs: DatasetRef

    def sent(self) -> tuple[set[str], set[str]]:
        """Return the texts that each provider was sent, in jobs or online."""
        both = (self.default, self.other)
        ours, theirs = ({*one.batches.texts_paid(), *one.texts_sent()} - NOBODYS for one in both)
        return ours, theirs


@pytest.fixture
async def other() -> AsyncIterator[FakeProvider]:
    """Serve a second provider."""
    async with FakeProvider(dims=48) as provider:
        yield provider


async def scene(
    resources: Resources, fake: FakeProvider, other: FakeProvider, ours: DatasetRef, psql: Any, **about: Any
) -> Scene:
    """Make a dataset of the provider `other`, and let rows of both wait."""
    await providers.add(resources, ProviderDraft("other", base_url=other.url, model="wider", **about), activate=False)
    async with resources.database.transaction() as tx:
        theirs = await datasets.ensure(tx, "river", "theirs")
    await planted(psql, theirs.id, ["a first text"])
    await embed_dataset(resources, theirs.id)
    await start(resources, BuildOptions("other"), dataset="theirs")
    await fill(resources, whole=True)
    await activate(resources, dataset="theirs")
    fake.requests.clear()
    other.requests.clear()
    await planted(psql, ours.id, OURS)
    await planted(psql, theirs.id, THEIRS)
    return Scene(resources, fake, other, ours, theirs)


@pytest.fixture
async def lane(bare: Resources, fake: FakeProvider) -> AsyncIterator[Resources]:
    """Add a default provider with a batch API."""
    async with batched(bare, fake, "openai") as resources:
        yield resources


async def test_a_flush_leaves_rows_of_a_provider_without_jobs_where_they_are(
    lane: Resources, fake: FakeProvider, other: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    told = await scene(lane, fake, other, dataset, psql, type="ollama")
    manager = BatchManager(lane)
    planned = await manager.flush_queue(dry_run=True)
    assert (planned.provider, planned.rows) == ("openai", len(OURS))
    flushed = await manager.flush_queue()
    assert (flushed.provider, flushed.rows, flushed.waiting) == ("openai", len(OURS), 0)
    with pytest.raises(NoBatchError, match="'other' is of type ollama"):
        await manager.flush_queue(dataset="theirs")
    await to_the_end(lane, psql)
    assert told.sent() == (set(OURS), set())
    assert (await embed_waiting(lane)).success == len(THEIRS)
    assert told.sent() == (set(OURS), set(THEIRS))
    assert await states(psql) == {"READY": len(OURS) + len(THEIRS) + 1}


async def test_a_flush_of_everything_sends_to_each_provider_its_own(
    lane: Resources, fake: FakeProvider, other: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    about = {"type": "openai", "api_key": "another-key", "dimensions": 48, "usd_per_million_tokens": 1.0}
    told = await scene(lane, fake, other, dataset, psql, **about)
    manager = BatchManager(lane)
    flushed = await manager.flush_queue(dataset="theirs")
    assert (flushed.provider, flushed.rows) == ("other", len(THEIRS))
    assert told.sent() == (set(), set(THEIRS))
    await planted(psql, told.theirs.id, ["one more of theirs"])
    flushed = await manager.flush_queue()
    assert sorted(flushed.provider.split(", ")) == ["openai", "other"]
    assert (flushed.rows, len(flushed.jobs)) == (len(OURS) + 1, 2)
    await to_the_end(lane, psql)
    assert told.sent() == (set(OURS), {*THEIRS, "one more of theirs"})
    assert await states(psql) == {"READY": len(OURS) + len(THEIRS) + 2}


async def test_what_one_provider_refuses_is_sent_to_the_other_all_the_same(
    lane: Resources, fake: FakeProvider, other: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    about = {"type": "openai", "api_key": "another-key", "dimensions": 48}
    told = await scene(lane, fake, other, dataset, psql, **about)
    fake.always(None, Fault.UNAUTHORIZED_401, endpoint="POST /v1/files")
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.rows, [job.stats["rows"] for job in flushed.jobs]) == (len(THEIRS), [len(THEIRS)])
    assert flushed.reason is not None and "openai" in flushed.reason
    assert told.sent() == (set(), set(THEIRS))
    with pytest.raises(AuthError):
        await BatchManager(lane).flush_queue(dataset="log")


async def test_a_provider_of_the_same_model_with_another_key_gets_the_rows_of_its_dataset_alone(
    lane: Resources, fake: FakeProvider, other: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    """The space is one, so that only who embeds the dataset tells the two apart."""
    draft = ProviderDraft("tenant", "openai", base_url=other.url, model="embedder", api_key="theirs")
    other.dims = 32
    tenant = await providers.add(lane, draft, activate=False)
    assert tenant.space.id == (await lane.provider()).space.id
    async with lane.database.transaction() as tx:
        theirs = await datasets.ensure(tx, "river", "theirs")
    assert await start(lane, BuildOptions("tenant"), dataset="theirs") == []
    await planted(psql, dataset.id, OURS)
    await planted(psql, theirs.id, THEIRS)
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.rows, len(flushed.jobs)) == (len(OURS) + len(THEIRS), 2)
    await to_the_end(lane, psql)
    assert {*fake.batches.texts_paid()} == set(OURS)
    assert {*other.batches.texts_paid()} == set(THEIRS)
    assert await states(psql) == {"READY": len(OURS) + len(THEIRS)}


async def test_a_backfill_by_batch_leaves_the_rows_of_the_other_provider_or_embeds_them_online(
    lane: Resources, fake: FakeProvider, other: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    told = await scene(lane, fake, other, dataset, psql, type="ollama")
    planned = await planned_backfill.plan(lane)
    assert (planned.provider, planned.texts) == ("openai, other", len(OURS) + len(THEIRS))
    report = await backfill.run(lane, deferred=True)
    assert (report.deferred, len(report.jobs), report.embedded) == (len(OURS), 1, 0)
    assert report.reason is not None and report.reason.startswith(f"{len(THEIRS)} of them are of datasets whose")
    assert await psql.fetchval("SELECT count(*) FROM embed_work w WHERE deferred AND lease_owner IS NULL") == 0
    report = await backfill.run(lane)
    assert (report.embedded, report.reason) == (len(THEIRS), None)
    await to_the_end(lane, psql)
    assert told.sent() == (set(OURS), set(THEIRS))


async def test_a_job_of_a_space_with_another_template_is_collected_into_that_space(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    """The provider's own space is another one than that of its job."""
    await planted(psql, dataset.id, ["a first text"])
    await embed_dataset(lane, dataset.id)
    await start(lane, BuildOptions("openai", chunk_tokens=300), dataset="log")
    await fill(lane, whole=True)
    await activate(lane, dataset="log")
    await planted(psql, dataset.id, OURS)
    assert (await BatchManager(lane).flush_queue()).rows == len(OURS)
    await to_the_end(lane, psql)
    assert await states(psql) == {"READY": len(OURS) + 1}


async def test_a_build_by_batch_of_one_dataset_is_sent_and_searched_when_it_is_whole(
    lane: Resources, fake: FakeProvider, dataset: DatasetRef, psql: Any
) -> None:
    await planted(psql, dataset.id, OURS)
    await embed_dataset(lane, dataset.id)
    await add(lane, fake, "openai", name="next", model="another", activate=False)
    fake.requests.clear()
    await start(lane, BuildOptions("next", automatic=True, by_batch=True), dataset="log")
    await fill(lane, whole=True)
    assert not {*fake.texts_sent()} & {*OURS}, "nothing is embedded online"
    flushed = await BatchManager(lane).flush_queue()
    assert (flushed.provider, flushed.rows) == ("openai, next", len(OURS))
    await to_the_end(lane, psql)
    await fill(lane, whole=True)
    async with lane.database.read() as tx:
        (found,) = await datasets.find(tx, "log")
    assert (await lane.provider_of(found)).model == "another"
    with pytest.raises(NoBatchError):
        await providers.add(lane, ProviderDraft("plain", "local"), activate=False)
        await start(lane, BuildOptions("plain", by_batch=True))
