"""`--batch` of the commands that take text in, and of `backfill`: who embeds, what is said, what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.batch_provider import API_KEY, embedded, ingest, jobs, with_provider
from tests.cli.command import Command
from tests.cli.exports import message, write
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer text);
INSERT INTO shop.orders SELECT n, 'Customer ' || n FROM generate_series(1, 5) n;
"""
YAML = """
name: shop
project: market
dataset: orders
tables:
  orders:
    table: shop.orders
    key: id
    template: "Order {id} of {customer}"
"""


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProviderThread(dims=32, api_key=API_KEY) as provider:
        provider.batches.polls = 0
        yield provider


@pytest.fixture
def batched(evervec: Command, fake: FakeProvider) -> Command:
    """`evervec` whose active provider has a batch API and a price."""
    return with_provider(evervec, fake, "gemini")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("retry", "backup", "holiday"):
        (folder / f"{name}.md").write_text(f"# {name.title()}\n\nAll about {name} in a few words.\n")
    return folder


def test_deferred_files_send_nothing_and_say_what_a_flush_costs(
    batched: Command, fake: FakeProvider, notes: Path
) -> None:
    before = len(fake.requests)
    done = batched("ingest", "files", notes, "--dataset", "docs", "--batch")
    assert done.code == 0, done
    assert "3 rows wait for `evervec batch flush`: $0.0" in done.err
    assert " instead of $0.0" in done.err
    assert "`evervec backfill`" not in done.err
    again = batched("ingest", "files", notes, "--dataset", "docs", "--deferred", "--json").document()
    assert (again["pending"], again["deferred"], len(fake.requests)) == (3, 3, before)

    assert batched("batch", "process").code == 0
    assert batched("batch", "process", "--json").document()["synced"]["ready"] == 3
    nothing = batched("ingest", "files", notes, "--dataset", "docs", "--batch")
    assert (nothing.code, "rows wait" in nothing.err) == (0, False), nothing


def test_only_the_edited_file_waits_for_the_next_job(batched: Command, fake: FakeProvider, notes: Path) -> None:
    batched("ingest", "files", notes, "--dataset", "docs")
    (notes / "retry.md").write_text("# Retry\n\nTried again three times.\n")
    found = batched("ingest", "files", notes, "--dataset", "docs", "--batch", "--json").document()
    assert (found["documents"]["changed"], found["deferred"]) == (1, 1)


async def test_deferred_tables_wait_for_a_flush(batched: Command, psql: Any, tmp_path: Path) -> None:
    await psql.execute(SHOP)
    (tmp_path / "shop.yaml").write_text(YAML)
    done = batched.process("ingest", "sql", tmp_path / "shop.yaml", "--full", "--batch")
    assert (done.code, "5 rows wait for `evervec batch flush`" in done.err) == (0, True), done
    again = batched.process("ingest", "sql", tmp_path / "shop.yaml", "--full", "--batch", "--json").document()
    assert (again["pending"], again["deferred"]) == (5, 5)
    assert batched.process("batch", "flush", "--json").document()["rows"] == 5


def test_deferred_messages_wait_and_extraction_is_told_apart(batched: Command, tmp_path: Path) -> None:
    found = ingest(batched, tmp_path, 30, "--batch")
    assert (found["pending"], found["deferred"], found["created"]) == (30, 30, 30)
    said = batched("ingest", "telegram", tmp_path / "result.json", "--dataset", "chat", "--batch")
    assert "30 rows wait for `evervec batch flush`" in said.err
    assert "30 messages wait to be scored and extracted" in said.err


async def test_deferred_messages_are_kept_from_the_workers(batched: Command, psql: Any, tmp_path: Path) -> None:
    path = write(tmp_path, [message(number) for number in range(1, 31)])
    assert batched.process("ingest", "telegram", path, "--batch").code == 0
    assert await psql.fetchval("SELECT count(*) FROM embed_work WHERE deferred AND not_before > now()") == 30


def test_a_backfill_goes_the_way_that_was_said(batched: Command, fake: FakeProvider, tmp_path: Path) -> None:
    ingest(batched, tmp_path, 30)
    sent = batched("backfill", "--deferred")
    assert (sent.code, "30 rows sent in 1 batch job, 0 reused" in sent.out) == (0, True), sent
    assert "`evervec batch sync --wait`" in sent.err
    assert "still waiting" not in sent.out
    assert (len(jobs(batched)), embedded(batched)) == (1, 0)
    assert batched("batch", "sync", "--json").document()["ready"] == 30

    ingest(batched, tmp_path, 40)
    online = batched("backfill", "--online", "--json")
    assert (online.code, online.document()["embedded"], online.document()["jobs"]) == (0, 10, []), online
    assert len(jobs(batched)) == 1


def test_by_itself_a_backfill_sends_many_rows_as_a_job_and_a_few_at_once(
    batched: Command, fake: FakeProvider, tmp_path: Path
) -> None:
    ingest(batched, tmp_path, 499)
    few = batched("backfill", "--json").document()
    assert (few["embedded"], few["deferred"], few["jobs"]) == (499, 0, [])
    ingest(batched, tmp_path, 999)
    many = batched("backfill", "--json")
    assert (many.code, many.document()["deferred"], len(many.document()["jobs"])) == (0, 500, 1), many


def test_what_the_provider_has_no_room_for_exits_1(batched: Command, fake: FakeProvider, tmp_path: Path) -> None:
    ingest(batched, tmp_path, 30)
    fake.batches.most_jobs = 0
    done = batched("backfill", "--batch")
    assert (done.code, "30 rows still wait" in done.err, "takes no more for now" in done.err) == (1, True, True), done


def test_a_kind_in_a_batch_job_is_refused(batched: Command) -> None:
    batched("backfill", "--batch", "--kind", "message").refused("A batch job takes rows of every kind")


def test_without_a_batch_api_nothing_is_taken_in(evervec: Command, notes: Path) -> None:
    evervec("ingest", "files", notes, "--batch").refused("'local' is of type local", "`evervec ingest` without --batch")
    assert evervec("status", "--json").document()["datasets"] == []


def test_a_width_can_be_asked_for(evervec: Command, fake: FakeProvider) -> None:
    wide = with_provider(evervec, fake, "openai")
    about = ("--type", "openai", "--base-url", fake.url, "--model", "other", "--api-key", API_KEY)
    assert wide("providers", "add", "narrow", *about, "--dimensions", 8, "--json").document()["dimensions"] == 8
    local = wide("providers", "add", "second", "--type", "local", "--dimensions", 8)
    local.refused("leave --dimensions out", code=1)
