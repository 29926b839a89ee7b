"""The marketplace example keeps its word: what it prints is checked by its numbers, its sync against a counting provider."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from typer.testing import CliRunner

from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from examples.marketplace import shop
from examples.marketplace.goods import GOODS
from examples.marketplace.market import TABLES, Market, MarketDownError, Row
from examples.marketplace.run import app
from examples.marketplace.sync_task import sync_marketplace_task
from tests.cli.conftest import bare_environment
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import sent

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "examples" / "marketplace" / "run"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SELLERS = {"north", "south"}


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Return the command, with a folder of its own for its files."""
    environment = bare_environment(TMPDIR=str(folder), COLUMNS="80")
    return subprocess.run([COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=110)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example puts what it throws away."""
    return tmp_path_factory.mktemp("marketplace")


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    """Return the whole story of one run."""
    done = run(folder, "--json", "--price", "0.5")
    assert (done.returncode, done.stderr) == (0, ""), done
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


def step(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in document["steps"] if one["step"] == name]
    return dict(found)


def test_the_first_run_sends_every_text_once_into_a_dataset_a_seller(document: dict[str, Any]) -> None:
    first = step(document, "first run")
    assert 1_400 <= first["texts_sent"] <= 1_600
    assert first["texts_sent"] == first["full_texts"] == first["chunks"]["new"] == first["records"]["new"]
    assert [one["mode"] for one in first["runs"]] == ["full", "full"]
    assert len({one["dataset_id"] for one in first["runs"]}) == 2
    assert first["cost_usd"] == pytest.approx(first["tokens"] * 0.5e-6)


def test_a_day_sends_what_changed_and_nothing_else(document: dict[str, Any]) -> None:
    first, day = step(document, "first run"), step(document, "a day later")
    changed = sum(len(ids) for ids in day["changed_ids"].values())
    assert set(day["changed_ids"]) == set(TABLES)
    assert day["texts_sent"] == changed == day["chunks"]["new"] + day["chunks"]["updated"] > 0
    assert day["texts_sent"] <= 0.105 * first["texts_sent"]
    assert [one["mode"] for one in day["runs"]] == ["delta", "delta"]
    assert (day["chunks"]["deleted"], day["records"]["skipped"]) == (0, 0)


def test_the_same_delta_again_sends_nothing(document: dict[str, Any]) -> None:
    day, again = step(document, "a day later"), step(document, "same again")
    assert (again["texts_sent"], again["requests"], again["tokens"]) == (0, 0, 0)
    assert again["chunks"] == {"new": 0, "updated": 0, "skipped": day["texts_sent"], "deleted": 0}


def test_a_sync_that_broke_off_wrote_rows_and_triggered_nothing(document: dict[str, Any]) -> None:
    broken = document["broken_sync"]
    assert "503" in broken["error"]
    assert broken["rows_written"] > 0
    assert (broken["runs_triggered"], broken["cursor_moved"]) == (0, False)


def test_a_full_rebuild_removes_what_is_gone_and_nothing_else(document: dict[str, Any]) -> None:
    found, rebuild = document["withdrawal"], step(document, "full rebuild")
    withdrawn = sum(map(len, found["withdrawn"].values()))
    assert set(found["withdrawn"]) == SELLERS
    assert (found["seen_by_sync"], found["still_indexed"]) == (0, withdrawn)
    assert found["removed"] == found["withdrawn"]
    assert found["added"] == {"north": [], "south": []}
    assert rebuild["records"]["deleted"] == rebuild["chunks"]["deleted"] == withdrawn > 0
    assert rebuild["full_texts"] == step(document, "same again")["full_texts"] - withdrawn
    assert (rebuild["texts_sent"], rebuild["chunks"]["new"], rebuild["chunks"]["updated"]) == (0, 0, 0)
    assert [(one["mode"], one["trigger"]) for one in rebuild["runs"]] == [("full", "schedule")] * 2


def test_the_full_rebuild_is_due_on_sundays_at_three(document: dict[str, Any]) -> None:
    (weekly,) = [one for one in document["schedule"] if one["task"] == "index_all_datasets_task"]
    due = datetime.fromisoformat(weekly["next"])
    assert weekly["cron"] == "0 3 * * 0"
    assert (due.isoweekday(), due.hour, due.minute, due.utcoffset()) == (7, 3, 0, timedelta(0))


def test_a_search_stays_inside_its_seller(document: dict[str, Any]) -> None:
    products = {
        seller: [f"{model} {line.noun}" for line in lines for model in line.models] for seller, lines in GOODS.items()
    }
    assert {one["dataset"] for one in document["searches"]} == SELLERS
    for found in document["searches"]:
        assert len(found["hits"]) == 3
        for hit in found["hits"]:
            assert hit["dataset"] == found["dataset"]
            assert any(name in hit["text"] for name in products[found["dataset"]]), hit
    for found in document["searches"][:2]:
        assert "The parcel arrived damaged" in found["hits"][0]["text"]


def test_a_review_of_the_day_is_found_first(document: dict[str, Any]) -> None:
    asked = [one for one in document["searches"] if one["told"]]
    assert {one["dataset"] for one in asked} == SELLERS
    for found in asked:
        assert found["told"] in found["hits"][0]["text"]


def test_nothing_stays(document: dict[str, Any], folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "cheap"])
def test_a_price_that_is_none_is_refused_before_anything_starts(price: str) -> None:
    done = CliRunner().invoke(app, ["--price", price])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "price" in done.stderr


async def everything(day: int) -> list[tuple[str, Row]]:
    return [(page.table, row) async for page in Market(NOON).changes(day) for row in page.rows]


async def test_equal_seeds_tell_equal_stories() -> None:
    assert Market(NOON).opening == Market(NOON).opening != Market(NOON, seed=8).opening
    assert await everything(1) == await everything(1) != await everything(2)
    assert await everything(0) == []


async def test_what_a_day_changes_differs_from_what_was_there() -> None:
    before = {(table, row["id"]): row for table, rows in Market(NOON).opening.items() for row in rows}
    changes = await everything(1)
    assert len({(table, row["id"]) for table, row in changes}) == len(changes)
    assert all(before.get((table, row["id"])) != row for table, row in changes)


async def open_shop(resources: Resources) -> Market:
    market = Market()
    async with resources.database.transaction() as tx:
        await shop.open_with(tx, market.opening)
    return market


async def runs_of(psql: Any) -> int:
    return int(await psql.fetchval("SELECT count(*) FROM index_runs"))


async def indexed(resources: Resources, answer: dict[str, Any]) -> int:
    """Work off what a sync asked for; answers how many texts that sent."""
    done = []
    for seller in answer["datasets"]:
        done += await requests.run_due(
            resources, (await requests.dataset(resources.database, f"marketplace/{seller}")).id
        )
    assert [run.state for run in done] == ["done"] * len(answer["datasets"])
    return sum(run.counts.texts_sent for run in done)


@pytest.mark.parametrize("table", [TABLES[0], TABLES[-1]])
async def test_wherever_a_sync_breaks_off_the_next_one_finds_all_of_it(
    resources: Resources, fake: FakeProvider, psql: Any, table: str
) -> None:
    market = await open_shop(resources)
    answer = await sync_marketplace_task(day=0, resources=resources, market=market)
    await indexed(resources, answer)
    fake.requests.clear()
    known, cursor = await runs_of(psql), await psql.fetchval("SELECT cursor::text FROM sources")
    with pytest.raises(MarketDownError):
        await sync_marketplace_task(day=1, resources=resources, market=Market(breaks_at=table))
    assert (await runs_of(psql), await psql.fetchval("SELECT cursor::text FROM sources")) == (known, cursor)
    assert sent(fake) == 0
    answer = await sync_marketplace_task(day=1, resources=resources, market=market)
    changed = await everything(1)
    assert {name: sorted(ids) for name, ids in answer["changed_ids"].items()} == {
        name: sorted(row["id"] for of, row in changed if of == name) for name in TABLES
    }
    assert await indexed(resources, answer) == len(changed) == sent(fake)


async def test_a_delivery_that_is_repeated_is_no_change(resources: Resources, psql: Any) -> None:
    market = await open_shop(resources)
    await indexed(resources, await sync_marketplace_task(day=1, resources=resources, market=market))
    before, known = await psql.fetch("SELECT id, xmin::text FROM shop.orders ORDER BY id"), await runs_of(psql)
    again = await sync_marketplace_task(day=1, resources=resources, market=market)
    assert again == {"changed_ids": {}, "datasets": {}, "warnings": []}
    assert await psql.fetch("SELECT id, xmin::text FROM shop.orders ORDER BY id") == before
    assert await runs_of(psql) == known
