"""The ledger: every request is in it, once, with its reason, tokens and price; and what was not sent is counted as saved."""

import asyncio
from typing import Any

import pytest

from evervec.domain.spending import Reason
from evervec.errors import Refused
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.budget import prices, questions, spending
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.pipeline.upkeep import backfill
from evervec.store import datasets
from evervec.store import providers as stored
from evervec.store.budget import ledger
from evervec.store.budget.ledger import SpendLine
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.pipeline.batch.batched import batched
from tests.pipeline.embedding.test_embed import save


async def by_reason(resources: Resources) -> dict[str | None, SpendLine]:
    async with resources.database.read() as tx:
        return {line.reason: line for line in await ledger.lines(tx, ["reason"])}


async def test_what_was_sent_and_what_was_reused_is_counted(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider
) -> None:
    await save(resources, dataset, [f"message number {i}" for i in range(100)] + ["the same"] * 5)
    await embed_dataset(resources, dataset.id)
    await save(resources, dataset, ["the same"] * 3, first=1000)
    await embed_dataset(resources, dataset.id)
    live = (await by_reason(resources))[Reason.LIVE]
    assert (live.texts, live.reused, live.requests) == (101, 4 + 3, fake.calls() - 1)  # one was the probe of `add`
    assert live.tokens > live.texts
    assert (live.usd, live.unpriced_tokens, live.reused_tokens > 0) == (0.0, live.told_tokens, True)


async def test_each_reason_has_its_line(resources: Resources, dataset: DatasetRef, fake: FakeProvider) -> None:
    await save(resources, dataset, ["one", "two", "cursed"])
    fake.always(lambda text: text == "cursed", Fault.BAD_REQUEST_400)
    await backfill.run(resources)
    await search(resources, "one")
    await questions.write(resources)
    found = await by_reason(resources)
    assert (found[Reason.BACKFILL].texts, found[Reason.QUERY].texts, found[Reason.PROBE].requests) == (2, 1, 2)
    assert found[Reason.BACKFILL].requests > 1


async def test_tokens_are_those_that_the_local_model_counted(local: Resources, dataset: DatasetRef) -> None:
    texts = ["short", "a somewhat longer text about queues and vectors"]
    await save(local, dataset, texts)
    await embed_dataset(local, dataset.id)
    live = (await by_reason(local))[Reason.LIVE]
    assert live.tokens == sum(local.clients.local.count_tokens(texts))
    assert (live.told_tokens, live.usd, live.unpriced_tokens) == (0, 0.0, 0)


async def test_many_workers_lose_no_count(local: Resources, dataset: DatasetRef, database: Any) -> None:
    await save(local, dataset, [f"text {i}" for i in range(400)])
    await asyncio.gather(*(embed_dataset(local, dataset.id, batch=20) for _ in range(4)))
    assert (await by_reason(local))[Reason.LIVE].texts == 400


async def test_the_price_of_a_request_is_the_one_of_its_provider(bare: Resources, fake: FakeProvider) -> None:
    async with batched(bare, fake, "openai") as resources:
        async with resources.database.transaction() as tx:
            dataset = await datasets.ensure(tx, "river", "log")
        await save(resources, dataset, ["one text", "another text"])
        await embed_dataset(resources, dataset.id)
        line = (await by_reason(resources))[Reason.LIVE]
        assert line.usd == pytest.approx(line.told_tokens * 0.15 / 1_000_000)
        assert (line.told_tokens > 0, line.unpriced_tokens) == (True, 0)


async def test_a_batch_job_costs_half_and_saves_the_other(bare: Resources, fake: FakeProvider) -> None:
    async with batched(bare, fake, "gemini") as resources:
        async with resources.database.transaction() as tx:
            dataset = await datasets.ensure(tx, "river", "log")
        await save(resources, dataset, ["one text", "another text", "another text"])
        await BatchManager(resources).flush_queue(min_batch_size=1)
        line = (await by_reason(resources))[Reason.BATCH]
    assert (line.requests, line.texts, line.reused) == (1, 2, 1)
    assert line.usd == line.saved_usd == pytest.approx(line.tokens * 0.15 / 2 / 1_000_000)


async def test_chunks_that_did_not_change_are_saved(local: Resources, tmp_path: Any) -> None:
    for name in ("one.md", "two.md"):
        (tmp_path / name).write_text(f"# {name}\n\nSome words about {name}.\n")
    for _ in range(2):
        await ingest_files(local, "mine", "notes", FileSelection([tmp_path]), RunOptions())
    line = (await by_reason(local))[Reason.LIVE]
    assert (line.texts, line.unchanged, line.unchanged_tokens) == (2, 2, line.tokens)


async def test_a_listed_price_is_found_and_the_operators_own_counts_first(
    resources: Resources, database: Any, psql: Any
) -> None:
    async def price(model: str, base_url: str | None) -> float | None:
        await psql.execute("UPDATE llm_providers SET type = 'openai', model = $1, base_url = $2", model, base_url)
        await prices.refresh(database)
        async with database.read() as tx:
            return prices.of_embedding(await stored.by_name(tx, "fake"))

    assert await price("text-embedding-3-small", None) == 0.02
    assert await price("text-embedding-3-small", "https://api.openai.com/v1") == 0.02
    assert await price("text-embedding-3-small", "http://127.0.0.1:8000/v1") is None
    assert await price("a model that nobody lists", None) is None
    await psql.execute("UPDATE llm_providers SET usd_per_million_tokens = 0.5")
    assert await price("text-embedding-3-small", None) == 0.5


async def test_the_ledger_outlives_its_provider(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, ["one"])
    await embed_dataset(resources, dataset.id)
    await providers.add(resources, ProviderDraft("second", "local"), activate=False)
    async with resources.database.transaction() as tx:
        await stored.remove(tx, "fake")
    report = await spending.report(resources, ["provider", "dataset"], dataset="river/log")
    assert [(line.provider, line.project, line.dataset, line.texts) for line in report.lines] == [
        ("fake", "river", "log", 1)
    ]


async def test_what_it_can_not_be_grouped_by_is_refused(resources: Resources) -> None:
    with pytest.raises(Refused, match="'hour'"):
        await spending.report(resources, ["hour"])
