"""`evervec ingest sql`, `index`, `runs` and what `providers` says of chunks: real tables, real files, real runs."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.command import Command
from tests.cli.exports import message, write
from tests.conftest import Servers, _sql
from tests.fakes.thread import FakeProviderThread

SHOP = (
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.orders (id bigint PRIMARY KEY, number text, note text, seller text, "
    "updated_at timestamptz NOT NULL DEFAULT clock_timestamp())",
    "CREATE INDEX ON shop.orders (updated_at)",
    "CREATE TABLE shop.reviews (id text PRIMARY KEY, said text, seller text)",
    "INSERT INTO shop.orders SELECT n, 'A-' || n, 'The parcel of order ' || n || ' is late.', "
    "CASE WHEN n % 2 = 0 THEN 'ann' ELSE 'bob' END FROM generate_series(1, 20) n",
    "INSERT INTO shop.reviews VALUES ('r/1', 'A lovely teapot, well packed.', 'ann')",
)
SOURCE = """
name: shop
project: market
dataset_column: seller
dataset_name: seller-{value}
tables:
  orders:
    table: shop.orders
    key: id
    updated_at: updated_at
    title: Order {number}
    template: "{note}"
  reviews:
    table: shop.reviews
    key: id
    template: "{said}"
"""


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> Path:
    """Write the description of a shop with twenty orders and a review of two sellers, in our own database."""
    tell(database_url, *SHOP)
    path = tmp_path / "shop.yaml"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def docs(evervec: Command, tmp_path: Path) -> Path:
    """Make a folder of two pages, indexed as p/docs."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "tea.md").write_text("# Tea\n\nGreen tea wants water of eighty degrees.\n")
    (folder / "jobs.md").write_text("# Jobs\n\nA failed job is tried again.\n")
    assert evervec("ingest", "files", folder, "--project", "p", "--dataset", "docs").code == 0
    return folder


def tell(url: str, *statements: str) -> None:
    asyncio.run(_sql(url, *statements))


async def count(url: str, *tables: str) -> int:
    """Count the rows of some tables together."""
    connection = await asyncpg.connect(url)
    found = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    await connection.close()
    return sum(found)


def report(evervec: Command, *arguments: object, **changes: object) -> dict[str, Any]:
    done = evervec(*arguments, "--json", **changes)
    assert done.code == 0, done
    found: dict[str, Any] = done.document()
    return found


def found_in(evervec: Command, dataset: str, text: str) -> list[str]:
    return [hit["text"] for hit in evervec("search", text, "--dataset", dataset, "--json").document()["hits"]]


# --- tables -----------------------------------------------------------------------------------------------------


def test_a_source_is_indexed_and_after_that_its_changes_alone(evervec: Command, shop: Path, database_url: str) -> None:
    first = report(evervec, "ingest", "sql", shop)
    assert (first["source"], first["since"], first["pending"]) == ("shop", None, 0)
    assert [one["dataset"] for one in first["datasets"]] == ["seller-ann", "seller-bob"]
    assert [one["texts_sent"] for one in first["datasets"]] == [11, 10]
    assert "order 7 " in found_in(evervec, "seller-bob", "the parcel of order 7")[0]

    tell(database_url, "UPDATE shop.orders SET note = 'It was stolen.', updated_at = clock_timestamp() WHERE id = 3")
    second = report(evervec, "ingest", "sql", shop)
    (bob,) = second["datasets"]
    assert (second["changed_ids"], bob["changed_ids"]) == ({"orders": [3]}, {"orders": [3]})
    assert (bob["mode"], bob["changed"], bob["texts_sent"], bob["saved"]["texts"]) == ("delta", {"orders": 1}, 1, 9)
    assert found_in(evervec, "seller-bob", "stolen")[0].endswith("It was stolen.")
    assert report(evervec, "ingest", "sql", shop)["datasets"] == []


def test_a_full_rebuild_finds_what_no_sync_sees_and_removes_what_is_gone(
    evervec: Command, shop: Path, database_url: str
) -> None:
    report(evervec, "ingest", "sql", shop)
    tell(
        database_url,
        "DELETE FROM shop.orders WHERE id = 4",
        "INSERT INTO shop.reviews VALUES ('r2', 'Fine.', 'zoe'), ('r3', 'It came chipped.', 'ann')",
    )
    synced = evervec("ingest", "sql", shop)
    assert "Nothing changed in shop since " in synced.out
    assert "table 'reviews': it has no updated_at: only a full run finds what changed." in synced.err
    rebuilt = report(evervec, "ingest", "sql", shop, "--full")
    ann, bob, zoe = rebuilt["datasets"]
    assert (ann["mode"], ann["documents"]["new"], ann["documents"]["deleted"]) == ("full", 1, 1)
    assert (bob["texts_sent"], bob["documents"]["unchanged"]) == (0, 10)
    assert (zoe["dataset"], zoe["documents"]["new"]) == ("seller-zoe", 1)
    assert "chipped" in found_in(evervec, "seller-ann", "it is chipped")[0]


def test_a_dry_run_of_a_source_changes_nothing(evervec: Command, shop: Path, database_url: str) -> None:
    planned = report(evervec, "ingest", "sql", shop, "--dry-run")
    assert [len(one["changed_ids"]["orders"]) for one in planned["datasets"]] == [10, 10]
    assert evervec("status", "--json").document()["datasets"] == []
    assert "Nothing was done." in evervec("ingest", "sql", shop, "--dry-run").err
    assert asyncio.run(count(database_url, "projects", "sources")) == 0
    assert len(report(evervec, "ingest", "sql", shop)["changed_ids"]["orders"]) == 20


def test_a_sync_shows_a_table_and_can_leave_the_work_to_workers(evervec: Command, shop: Path) -> None:
    queued = report(evervec, "ingest", "sql", shop, "--no-index")
    assert [one["state"] for one in queued["datasets"]] == ["queued", "queued"]
    done = evervec("ingest", "sql", shop, "--full")
    assert done.code == 0, done
    said, heads, ann, bob = done.out.splitlines()
    assert said.startswith("20 records of shop changed since ")
    assert heads.split() == ["dataset", "state", "documents", "chunks", "sent", "seconds", "cost", "changed"]
    assert ann.split()[:5] == ["market/seller-ann", "done", "11", "11", "11"]
    assert bob.split()[:5] == ["market/seller-bob", "done", "10", "10", "10"]


def test_a_source_in_another_database_is_reached_through_the_environment(
    evervec: Command, servers: Servers, tmp_path: Path
) -> None:
    tell(servers.database_url, "DROP DATABASE IF EXISTS elsewhere WITH (FORCE)", "CREATE DATABASE elsewhere")
    elsewhere = servers.database("elsewhere")
    tell(elsewhere, *SHOP)
    path = tmp_path / "shop.yaml"
    path.write_text(f'url: "${{SHOP_URL}}"\n{SOURCE}')
    evervec("ingest", "sql", path).refused("the environment has no SHOP_URL. Set it.")
    evervec("ingest", "sql", path, SHOP_URL=elsewhere).refused("EVERVEC_SECRET_KEY is not set")
    key = {"EVERVEC_SECRET_KEY": "S2V5IG9mIHRoZSB0ZXN0czogMzIgYnl0ZXMgbG9uZyE="}
    assert len(report(evervec, "ingest", "sql", path, SHOP_URL=elsewhere, **key)["datasets"]) == 2
    tell(servers.database_url, "DROP DATABASE elsewhere WITH (FORCE)")
    evervec("ingest", "sql", path, SHOP_URL=elsewhere, **key).refused("The source shop at", "does not answer", code=1)
    evervec("index", "seller-ann", **key).refused("The source shop at", "does not answer", code=1)
    every = evervec("index", "--all", **key)
    assert (every.code, "2 runs did not finish. See `evervec runs`." in every.err) == (1, True), every
    (latest,) = report(evervec, "runs", "seller-ann", "-k", 1)["runs"]
    assert (latest["state"], "does not answer" in latest["error"]) == ("queued", True)  # it is tried again


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("shop.orders", "shop.ordres"), 'there is no table or view "shop"."ordres"'),
        (("{note}", "{nota}"), "its template names 'nota'"),
        (("key: id", "kee: id"), "field 'kee' is unknown"),
        (("project: market", ""), "field 'project' is missing"),
        (("tables:", "tables: ["), "shop.yaml: line"),
    ],
)
def test_a_description_that_is_wrong_is_told_where(
    evervec: Command, shop: Path, change: tuple[str, str], words: str
) -> None:
    shop.write_text(SOURCE.replace(*change))
    evervec("ingest", "sql", shop).refused(words)
    evervec("ingest", "sql", shop, "--dry-run").refused(words)
    assert evervec("runs").out.startswith("No run yet.")


def test_a_description_that_is_not_there_is_told(evervec: Command, tmp_path: Path) -> None:
    evervec("ingest", "sql", tmp_path / "nowhere.yaml").refused("the file can not be read (No such file or directory)")


# --- one dataset, and all of them -------------------------------------------------------------------------------


def test_a_dataset_is_indexed_from_its_source(evervec: Command, docs: Path) -> None:
    (docs / "tea.md").write_text("# Tea\n\nBlack tea wants boiling water.\n")
    (docs / "jobs.md").unlink()
    compared = report(evervec, "index", "p/docs")
    assert (compared["mode"], compared["texts_sent"], compared["documents"]["deleted"]) == ("compare", 1, 0)
    full = report(evervec, "index", "docs", "--full")
    assert (full["mode"], full["texts_sent"], full["documents"]["deleted"], full["pending"]) == ("full", 0, 1, 0)
    assert "boiling" in found_in(evervec, "docs", "water for tea")[0]
    assert "1 document: 0 new, 0 changed, 0 moved, 1 the same, 0 gone, 0 skipped" in evervec("index", "docs").out


def test_only_what_is_named_is_looked_at(evervec: Command, docs: Path) -> None:
    for name in ("tea.md", "jobs.md"):
        (docs / name).write_text(f"# {name}\n\nWritten again.\n")
    run = report(evervec, "index", "docs", "--changed", "files=tea.md")
    assert (run["mode"], run["changed"], run["documents"]["changed"]) == ("delta", {"files": 1}, 1)
    run = report(evervec, "index", "docs", "--changed", "files=tea.md", "--changed", f"files={docs / 'jobs.md'}")
    assert (run["documents"]["changed"], run["documents"]["unchanged"]) == (1, 1)


def test_ids_come_from_stdin(evervec: Command, docs: Path) -> None:
    (docs / "tea, green.md").write_text("# Green\n\nA name with a comma.\n")
    process = evervec.start("index", "docs", "--changed", "files=-", "--json")
    out, err = process.communicate("tea, green.md\njobs.md\n", timeout=60)
    assert process.returncode == 0, err
    assert '"new": 1' in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("index", "Give a DATASET, or --all."),
        ("index docs --all", "Give a DATASET, or --all."),
        ("index nowhere", "There is no dataset 'nowhere'. Known datasets: p/docs."),
        ("index docs --full --changed files=tea.md", "--changed goes with one DATASET, and without --full."),
        ("index --all --changed files=tea.md", "--changed goes with one DATASET"),
        ("index --all --allow-empty", "--allow-empty goes with one DATASET"),
        ("index docs --changed tea.md", "'tea.md' is not TABLE=ID,ID."),
        ("index docs --changed files=", "'files=' is not TABLE=ID,ID."),
        ("index docs --changed files=a.md,,b.md", "is not TABLE=ID,ID."),
        (
            "index docs --changed orders=1",
            "There is no table 'orders' in the source of this dataset. Known tables: files.",
        ),
        ("index docs --changed files=/etc/hostname", "'/etc/hostname' is not in the files of this dataset."),
        ("index docs --changed files=tea.md --no-wait --changed orders=1", "There is no table 'orders'"),
        ("runs nowhere", "There is no dataset 'nowhere'"),
        ("runs -k 0", "--limit"),
    ],
)
def test_wrong_usage_is_told(evervec: Command, docs: Path, line: str, words: str) -> None:
    evervec(*line.split()).refused(words)


def test_an_id_of_a_wrong_type_is_refused(evervec: Command, shop: Path) -> None:
    report(evervec, "ingest", "sql", shop)
    evervec("index", "seller-ann", "--changed", "orders=two").refused(
        "'two' is not an id, its keys are of type integer."
    )
    assert report(evervec, "index", "seller-ann", "--changed", "orders=2,4,999")["documents"]["unchanged"] == 2
    assert report(evervec, "index", "seller-ann", "--changed", "reviews=r/1")["documents"]["unchanged"] == 1


def test_a_dataset_that_nothing_fills_is_told(evervec: Command, tmp_path: Path) -> None:
    assert evervec("ingest", "telegram", write(tmp_path, [message(1)])).code == 0
    evervec("index", "messages").refused("Dataset telegram/messages has no source")
    assert "No dataset has a source." in evervec("index", "--all").out


def test_a_run_for_the_workers_waits_and_is_done_by_whoever_comes(evervec: Command, docs: Path, shop: Path) -> None:
    report(evervec, "ingest", "sql", shop)
    queued = report(evervec, "index", "docs", "--no-wait")
    assert (queued["state"], queued["full"], queued["saved"]) == ("queued", None, None)
    evervec("index", "docs", "--no-wait").refused(f"by run {queued['run']}", code=1)
    everything = report(evervec, "index", "--all", "--full")
    assert [one["dataset"] for one in everything["datasets"]] == ["seller-ann", "seller-bob", "docs"]
    assert {one["state"] for one in everything["datasets"]} == {"done"}
    assert [one["documents"]["unchanged"] for one in everything["datasets"]] == [11, 10, 2]
    states = [(one["run"], one["mode"], one["state"]) for one in report(evervec, "runs", "docs")["runs"]]
    assert states[0] == (queued["run"], "full", "done")  # the one that waited took the wider wish along


def test_a_worker_beside_it_is_waited_for(evervec: Command, docs: Path) -> None:
    worker = evervec.start("worker")
    try:
        assert worker.stderr is not None
        while "Working." not in (line := worker.stderr.readline()):
            assert line, "the worker ended"
        for number in range(3):
            (docs / f"{number}.md").write_text(f"# Page {number}\n\nNumber {number}.\n")
            (one,) = report(evervec, "index", "--all")["datasets"]
            assert (one["state"], one["documents"]["new"]) == ("done", 1)
    finally:
        worker.terminate()
        worker.communicate(timeout=60)


# --- what runs did, and what they cost --------------------------------------------------------------------------


def test_runs_are_listed_the_newest_first(evervec: Command, docs: Path) -> None:
    (docs / "tea.md").write_text("# Tea\n\nWritten again.\n")
    report(evervec, "index", "docs")
    listed = report(evervec, "runs")["runs"]
    assert [(run["mode"], run["texts_sent"], run["saved"]["texts"]) for run in listed] == [
        ("compare", 1, 1),
        ("full", 2, 0),
    ]
    heads, newest, oldest = evervec("runs", "p/docs").out.splitlines()
    assert heads.split() == ["at", "mode", "state", "docs", "chunks", "sent", "saved", "seconds", "dataset"]
    assert newest.split()[1:7] == ["compare", "done", "1", "1", "1", "1"]
    assert (oldest.split()[1], oldest.split()[-2:]) == ("full", ["p/docs", "(cli)"])
    assert len(report(evervec, "runs", "docs", "-k", 1)["runs"]) == 1


def test_a_template_belongs_to_the_space_and_documents_are_chunked_again(evervec: Command, docs: Path) -> None:
    (before,) = report(evervec, "providers", "list")["providers"]
    assert (before["template"], before["chunk_tokens"]) == ("{title} › {heading}\n\n{text}", 256)
    assert before["usd_per_million_tokens"] == 0.0
    done = evervec(
        "providers", "add", "local", "--type", "local", "--template", r"About {title}\n{text}", "--price", 1.5
    )
    assert done.code == 0, done
    assert r"chunks of 256 tokens at most: About {title}\n{text}" in done.out
    assert "costs $1.5 per million tokens" in done.out
    assert "Build its own beside it with `evervec providers use local --reembed`" in done.err
    (after,) = report(evervec, "providers", "list")["providers"]
    assert after["template"] == "About {title}\n{text}"
    (former,) = report(evervec, "spaces", "build", "--provider", "local", "--activate")["builds"]
    assert (former["state"], former["rows"], former["missing"]) == ("previous", 2, 0)
    assert report(evervec, "index", "docs")["texts_sent"] == 0, "every document is chunked again, and embedded"
    (docs / "new.md").write_text("# New\n\nA page that came later.\n")
    run = report(evervec, "index", "docs")
    assert (run["texts_sent"], run["chunks"]["new"]) == (1, 1)
    assert run["cost_usd"] == pytest.approx(run["tokens"] * 1.5e-6)

    again = evervec("providers", "add", "local", "--type", "local")  # what is not said of the space stays
    assert r"About {title}\n{text}" in again.out
    assert "chunked again" not in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--template", "{title}"), "The template '{title}' can not be used: it needs {text}"),
        (("--template", "{text} {price}"), "can not be used"),
        (("--template", "{text!r}"), "can not be used"),
        (("--template", ""), "can not be used"),
        (("--chunk-tokens", "31"), "31 tokens are too few for a chunk: give 32 or more."),
        (("--price", "-1"), "The price -1.0 is not valid"),
        (("--price", "nan"), "The price nan is not valid"),
    ],
)
def test_a_template_that_can_not_be_used_is_never_kept(
    evervec: Command, arguments: tuple[str, str], words: str
) -> None:
    evervec("providers", "add", "new", "--type", "local", *arguments).refused(words)
    (only,) = report(evervec, "providers", "list")["providers"]
    assert (only["name"], only["chunk_tokens"]) == ("local", 256)


def test_the_length_that_a_model_takes_is_found_and_shown(evervec: Command) -> None:
    with FakeProviderThread(dims=32, context_tokens=512) as fake:
        done = evervec("providers", "add", "fake", "--base-url", fake.url, "--model", "embedder", "--chunk-tokens", 128)
    assert "the model takes 512 tokens of a text" in done.out, done
    assert "price unknown: give it with --price" in done.out
