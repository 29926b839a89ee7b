"""A plan before and the ledger after say the same, and a plan sends and writes nothing."""

from pathlib import Path
from typing import Any

import pytest

from evervec.domain.limits import Limits
from evervec.domain.spending import Spent
from evervec.errors import Refused
from evervec.pipeline.budget import setting
from evervec.pipeline.budget.planning import SendPlan
from evervec.pipeline.budget.setting import BudgetOwner
from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest import planned_ingest
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.ingest.sql import sync
from evervec.pipeline.ingest.telegram import import_telegram
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import planned_build
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.pipeline.upkeep import backfill, planned_backfill
from evervec.store.budget import ledger
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.cli.exports import message, write
from tests.fakes.server import FakeProvider
from tests.pipeline.embedding.test_embed import save
from tests.pipeline.indexing.shop import add, described, open_shop

TEXTS = [f"message number {number} about {'queues ' * (number % 30)}" for number in range(150)]


async def spent(resources: Resources, reason: str) -> Spent:
    async with resources.database.read() as tx:
        return next(line for line in await ledger.lines(tx, ["reason"]) if line.reason == reason)


def assert_held(planned: SendPlan, line: Spent) -> None:
    assert (planned.texts, planned.reused) == (line.texts, line.reused)
    assert planned.tokens == pytest.approx(line.tokens, rel=0.02)


async def assert_a_backfill_is_its_plan(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, [*TEXTS[:20], "the same"])
    await embed_dataset(resources, dataset.id)
    await save(resources, dataset, [*TEXTS, "the same", "new", "new"], first=1000)
    planned = await planned_backfill.plan(resources)
    assert (planned.rows, planned.unique_texts, planned.texts, planned.reused) == (153, 152, 131, 22)
    await backfill.run(resources)
    assert_held(planned, await spent(resources, "backfill"))


async def test_the_ledger_of_a_backfill_is_its_plan(resources: Resources, dataset: DatasetRef) -> None:
    await assert_a_backfill_is_its_plan(resources, dataset)


async def test_the_ledger_of_the_model_here_is_its_plan(local: Resources, dataset: DatasetRef) -> None:
    await assert_a_backfill_is_its_plan(local, dataset)


async def test_the_ledger_of_an_index_run_is_its_plan(local: Resources, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\n" + f"Some words about {name} and more. " * 200)
    files = FileSelection([tmp_path])
    planned = await planned_ingest.of_files(local, "mine", "notes", files)
    await ingest_files(local, "mine", "notes", files, RunOptions())
    line = await spent(local, "live")
    assert planned.texts > 2
    assert_held(planned, line)
    assert (await planned_ingest.of_files(local, "mine", "notes", files)).texts == 0


@pytest.mark.parametrize("split", [False, True])
async def test_the_ledger_of_a_sync_is_its_plan(local: Resources, psql: Any, split: bool) -> None:
    """What was never synced is planned whole, then what changed since, with the datasets of new tenants."""
    await open_shop(psql, 60)
    description = described(split=split)
    before = await rows_of_every_table(psql)
    planned = await planned_ingest.of_sql(local, description)
    assert await rows_of_every_table(psql) == before
    assert (planned.rows, planned.texts) == (60, 60)
    for one in (await sync(local, description)).datasets:
        assert one.dataset_id is not None
        await requests.run_due(local, one.dataset_id)
    assert_held(planned, await spent(local, "live"))
    await add(psql, 61, 65, seller="bob")
    await psql.execute("UPDATE shop.orders SET note = 'changed ' || id WHERE id <= 3")
    assert (await planned_ingest.of_sql(local, description)).texts == 8
    assert (await planned_ingest.of_sql(local, description, full=True)).texts == 8


async def test_the_ledger_of_an_import_is_its_plan(local: Resources, dataset: DatasetRef, tmp_path: Path) -> None:
    path = write(tmp_path, [message(number, text=TEXTS[number]) for number in range(1, 150)])
    planned = await planned_ingest.of_telegram(local, path, "river", "new")
    assert (planned.rows, planned.texts) == (149, 149)
    assert (await planned_ingest.of_telegram(local, path, "river", "log")).texts == 149
    await import_telegram(local, path, "river", "log")
    await embed_dataset(local, dataset.id)
    assert_held(planned, await spent(local, "live"))
    assert (await planned_ingest.of_telegram(local, path, "river", "log")).rows == 0
    edited = message(7, text="Said otherwise.", edited_unixtime="1893456000")
    again = write(tmp_path, [edited, message(8, text=TEXTS[8]), message(200, text=TEXTS[9])])
    planned = await planned_ingest.of_telegram(local, again, "river", "log")
    assert (planned.rows, planned.texts, planned.reused) == (2, 1, 1)


async def test_the_ledger_of_a_build_is_its_plan(
    resources: Resources, fake: FakeProvider, dataset: DatasetRef, tmp_path: Path, psql: Any
) -> None:
    """Messages are sent as they are, documents as they are chunked for the other space, and what it has already is not."""
    await save(resources, dataset, [*TEXTS, "the same", "the same"])
    (tmp_path / "one.md").write_text("# One\n\n" + "".join(f"Here are words about {number}. " for number in range(400)))
    await ingest_files(resources, "river", "notes", FileSelection([tmp_path]), RunOptions())
    await embed_dataset(resources, dataset.id)
    draft = ProviderDraft("other", "ollama", base_url=fake.url, model="another", usd_per_million_tokens=10)
    await providers.add(resources, draft, activate=False)
    options, calls, before = BuildOptions("other", chunk_tokens=100), fake.calls(), await rows_of_every_table(psql)
    planned = await planned_build.plan(resources, options)
    assert (fake.calls(), await rows_of_every_table(psql)) == (calls, before)
    assert (planned.provider, planned.reused, planned.texts > len(TEXTS) + 20) == ("other", 1, True)
    await start(resources, options)
    await fill(resources, whole=True)
    assert_held(planned, await spent(resources, "re-embed"))
    assert (await planned_build.plan(resources, options)).rows == 0


async def test_a_plan_sends_and_writes_nothing(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    await save(resources, dataset, TEXTS)
    (tmp_path / "one.md").write_text("Some words.")
    calls, before = fake.calls(), await rows_of_every_table(psql)
    await planned_backfill.plan(resources)
    await planned_ingest.of_files(resources, "mine", "notes", FileSelection([tmp_path]))
    assert (fake.calls(), await rows_of_every_table(psql)) == (calls, before)


async def rows_of_every_table(psql: Any) -> dict[str, str]:
    tables = await psql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1")
    return {name: str(await psql.fetchval(f"SELECT md5(string_agg(t::text, ',')) FROM {name} t")) for (name,) in tables}


async def test_time_and_money_come_from_limits_and_from_what_was_measured(
    resources: Resources, dataset: DatasetRef, psql: Any
) -> None:
    await save(resources, dataset, TEXTS)
    await psql.execute("UPDATE llm_providers SET usd_per_million_tokens = 10")
    first = await planned_backfill.plan(resources)
    assert (first.minutes, first.usd, first.batch_usd) == (None, pytest.approx(first.tokens / 100_000), None)
    await setting.set_(resources, BudgetOwner(provider="fake"), Limits(requests_per_minute=2))
    limited = await planned_backfill.plan(resources)
    assert limited.minutes == pytest.approx(limited.requests / 2)


async def test_a_plan_that_no_ceiling_has_room_for_says_so(resources: Resources, dataset: DatasetRef) -> None:
    await save(resources, dataset, TEXTS)
    await setting.set_(resources, BudgetOwner(provider="fake"), Limits(tokens_per_day=100))
    (stop,) = (await planned_backfill.plan(resources)).stops
    assert "tokens left this day, of 100" in stop


async def test_a_kind_that_there_is_not_is_refused(resources: Resources) -> None:
    with pytest.raises(Refused, match="no kind 'picture'"):
        await planned_backfill.plan(resources, kind="picture")
