"""`evervec ingest files` on real folders: what is found afterwards, what a second run costs, and what it refuses."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from evervec.cli.commands.search import location
from evervec.cli.terminal import output
from evervec.pipeline.leases import held
from evervec.store import runs
from evervec.store.database.session import Database
from evervec.store.embeddings.hits import ChunkPlace
from tests.cli.command import Command
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread

SHAPE = {
    "project": str,
    "dataset": str,
    "dry_run": bool,
    "run": str,
    "dataset_id": str,
    "mode": str,
    "trigger": str,
    "embeds": bool,
    "lane": str,
    "state": str,
    "error": type(None),
    "attempts": int,
    "changed": type(None),
    "created_at": str,
    "started_at": str,
    "finished_at": str,
    "documents": dict.fromkeys(("new", "changed", "unchanged", "moved", "deleted", "skipped"), int),
    "chunks": dict.fromkeys(("new", "updated", "skipped", "deleted"), int),
    "texts_sent": int,
    "embeddings_generated": int,
    "embeddings_reused": int,
    "requests": int,
    "tokens": int,
    "cost_usd": float,
    "full": {"texts": int, "tokens": int, "cost_usd": float},
    "saved": {"texts": int, "tokens": int, "cost_usd": float},
    "seconds": dict.fromkeys(("list", "read", "chunk", "write", "embed", "total"), float),
    "skipped": {"binary": int, "unknown format": int},
    "examples": list,
    "pending": int,
}

CHAPTERS = {
    "Retrying": "A failed job is tried again after a while, and after three attempts it is set aside.",
    "Pictures": "Pictures are kept in the object store under the digest of their bytes, so a copy costs nothing.",
    "Backups": "Every night the database is copied to another town, and once a month a copy is read back.",
    "Holidays": "Whoever is away says so in the calendar, two weeks before.",
}


def shape(value: Any) -> Any:
    """Return the types of a document, key by key."""
    return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else type(value)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Write a guide with four chapters, a page of Python, a picture, and what git would leave out; all of it some days old."""
    folder = tmp_path / "notes"
    folder.mkdir()
    chapters = "\n\n".join(f"## {name}\n\n{text}" for name, text in CHAPTERS.items())
    (folder / "guide.md").write_text(f"# Guide\n\n{chapters}\n")
    (folder / "sums.py").write_text('def total(prices):\n    """Add up what was bought."""\n    return sum(prices)\n')
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 10)
    (folder / ".gitignore").write_text("drafts/\n")
    (folder / "drafts").mkdir()
    (folder / "drafts" / "secret.md").write_text("# Not yet\n\nThe merger is off.\n")
    age(folder)
    return folder


def age(folder: Path) -> None:
    """Make every file older than the moment in which its time promises nothing."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (time.time() - 1000 - number,) * 2)


def ingest(evervec: Command, *arguments: object, **changes: object) -> dict[str, Any]:
    """Return the document of a run that succeeded."""
    done = evervec("ingest", "files", *arguments, "--dataset", "docs", "--json", **changes)
    assert done.code == 0, done
    found: dict[str, Any] = done.document()
    return found


def hits(evervec: Command, text: str) -> list[str]:
    return [hit["text"] for hit in evervec("search", text, "--dataset", "docs", "--json").document()["hits"]]


def test_a_folder_is_found_afterwards_and_costs_nothing_again(evervec: Command, notes: Path) -> None:
    first = ingest(evervec, notes)
    assert shape(first) == SHAPE
    assert first["documents"] == {"new": 2, "changed": 0, "unchanged": 0, "moved": 0, "deleted": 0, "skipped": 2}
    assert first["chunks"]["new"] == first["texts_sent"] == first["full"]["texts"] > 3
    assert first["skipped"] == {"binary": 1, "unknown format": 1}
    assert sorted(one["reason"] for one in first["examples"]) == ["binary", "unknown format"]
    assert (first["saved"]["texts"], first["pending"], first["cost_usd"]) == (0, 0, 0.0)
    assert "tried again" in hits(evervec, "what happens to a job that failed")[0]
    assert "total" in hits(evervec, "add up the prices")[0]
    assert not [text for text in hits(evervec, "merger") if "merger" in text]

    again = ingest(evervec, notes)
    assert (again["documents"]["unchanged"], again["chunks"]["skipped"]) == (2, first["chunks"]["new"])
    assert (again["texts_sent"], again["tokens"], again["requests"]) == (0, 0, 0)
    assert again["saved"]["texts"] == first["texts_sent"]


def test_a_hit_says_in_which_document_and_line_it_stands(evervec: Command, notes: Path) -> None:
    ingest(evervec, notes)
    asked = ("search", "add up the prices", "--dataset", "docs", "-k", 1)
    hit = evervec(*asked, "--json").document()["hits"][0]
    assert hit["place"] == {
        "document": (notes / "sums.py").as_uri(),
        "heading": "total",
        "line_start": 1,
        "line_end": 3,
    }
    compared = evervec(*asked, "--kind", "chunk", "--rows", hit["id"], "--json").document()["hits"][0]
    assert compared | {"score": 0} == hit | {"score": 0}

    assert "notes/sums.py:1 total  def total(prices): " in evervec(*asked).out


def test_chunks_that_say_the_same_are_shown_with_their_places(evervec: Command, notes: Path) -> None:
    said = "# {}\n\nThe lighthouse keeper counts the ships that pass at night.\n"
    for name in ("north", "south"):
        (notes / f"{name}.md").write_text(said.format(name))
    ingest(evervec, notes)
    asked = ("duplicates", "--kind", "chunk", "--dataset", "docs", "--threshold", 0.7)
    (pair,) = evervec(*asked, "--json").document()["pairs"]
    assert {Path(pair[place]["document"]).name for place in ("place", "other_place")} == {"north.md", "south.md"}
    assert "lighthouse" in pair["text"]
    assert "lighthouse" in pair["other_text"]
    table = evervec(*asked).out
    assert "notes/north.md:1" in table
    assert "notes/south.md:1" in table


def test_what_it_says_to_people(evervec: Command, notes: Path) -> None:
    done = evervec("ingest", "files", notes, "--dataset", "docs")
    chunks = ingest(evervec, notes)["full"]["texts"]
    documents, pieces, texts, took = done.out.splitlines()
    assert (
        documents
        == "2 documents: 2 new, 0 changed, 0 moved, 0 the same, 0 gone, 2 skipped (1 binary, 1 unknown format)"
    )
    assert pieces == f"{chunks} chunks: {chunks} new, 0 updated, 0 the same, 0 gone"
    assert texts.startswith(f"{chunks} texts sent in 1 request (")
    assert texts.endswith(f"tokens), 0 reused; a full run would send {chunks}")
    assert took.startswith("in ")
    assert f"skipped {notes / 'binary.txt'}: binary" in done.err
    assert "logo.png" not in done.err  # a picture is no news
    assert 'Search it with `evervec search "…" --dataset docs`.' in done.err


def test_an_edit_sends_the_chunk_that_it_touched_and_what_is_deleted_is_gone(evervec: Command, notes: Path) -> None:
    ingest(evervec, notes)
    guide = notes / "guide.md"
    guide.write_text(guide.read_text().replace("two weeks before", "three weeks before"))
    shutil.move(notes / "sums.py", notes / "prices.py")
    edited = ingest(evervec, notes)
    assert edited["documents"] | {"skipped": 0} == dict.fromkeys(edited["documents"], 0) | {"changed": 1, "moved": 1}
    assert (edited["texts_sent"], edited["chunks"]["skipped"]) == (1, edited["full"]["texts"] - 1)
    assert "three weeks" in hits(evervec, "when do I have to announce my holidays")[0]

    guide.unlink()
    assert ingest(evervec, notes)["documents"]["deleted"] == 1
    assert all("tried again" not in text for text in hits(evervec, "what happens to a job that failed"))


def test_include_exclude_and_size_choose_what_is_taken(evervec: Command, notes: Path) -> None:
    (notes / "long.md").write_text("# Long\n\n" + "A line of a long text.\n" * 1000)
    run = ingest(evervec, notes, "--include", "*.md", "--include", "*.txt", "--exclude", "binary.*", "--max-mb", 0.01)
    assert (run["documents"]["new"], run["skipped"]) == (1, {"too large": 1})
    assert run["examples"][0]["uri"].endswith("/long.md")
    assert ingest(evervec, notes, "--dry-run", EVERVEC_FILE_MB=0.01)["skipped"]["too large"] == 1


def test_a_dry_run_tells_and_changes_nothing(evervec: Command, notes: Path) -> None:
    planned = ingest(evervec, notes, "--dry-run")
    assert (planned["dry_run"], planned["run"], planned["documents"]["new"]) == (True, None, 2)
    assert evervec("status", "--json").document()["datasets"] == []
    said = evervec("ingest", "files", notes, "--dry-run")
    assert f"{planned['texts_sent']} texts to be sent at most" in said.out
    assert "Nothing was changed." in said.err
    assert ingest(evervec, notes)["texts_sent"] == planned["texts_sent"]


def test_without_embedding_the_rows_wait_and_it_says_for_whom(evervec: Command, notes: Path) -> None:
    done = evervec("ingest", "files", notes, "--dataset", "docs", "--no-embed")
    assert "Nothing sent: the workers embed it" in done.out
    assert "rows wait to be embedded and no worker is running" in done.err
    run = ingest(evervec, notes, "--no-embed")
    assert (run["embeds"], run["saved"], run["pending"]) == (False, None, run["full"]["texts"])
    assert ingest(evervec, notes)["texts_sent"] == run["pending"]  # the next run embeds what is left


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProviderThread(dims=32) as provider:
        yield provider


def test_a_provider_that_is_away_leaves_rows_that_wait_and_says_why(
    evervec: Command, notes: Path, fake: FakeProvider
) -> None:
    added = evervec("providers", "add", "fake", "--base-url", fake.url, "--model", "embedder", "--price", 2)
    assert added.code == 0, added
    fake.always(None, Fault.ERROR_500)
    done = evervec("ingest", "files", notes, "--dataset", "docs")
    assert done.code == 0, done
    assert "rows wait to be embedded: fake does not work at the moment" in done.err
    assert "`evervec backfill` tries it again now" in done.err
    fake.heal()
    evervec("providers", "test", "fake")
    run = ingest(evervec, notes)
    assert (run["pending"], run["texts_sent"]) == (0, run["full"]["texts"])
    assert run["cost_usd"] == pytest.approx(run["tokens"] * 2 / 1_000_000)


def test_a_file_name_can_not_speak_to_the_terminal(evervec: Command, notes: Path) -> None:
    (notes / "evil\x1b[31m\nname.txt").write_bytes(b"\0\1\2" * 100)
    (notes / os.fsdecode(b"caf\xe9.md")).write_text("# Latin\n\nA name that is not UTF-8.\n")
    done = evervec("ingest", "files", notes, "--dataset", "docs")
    assert done.code == 0, done
    assert "\x1b" not in done.out + done.err
    assert "evil\ufffd[31m\ufffdname.txt: binary" in done.err
    assert "3 skipped (2 binary, 1 unknown format)" in done.out
    assert ingest(evervec, notes)["documents"]["unchanged"] == 3


def test_paths_and_options_that_can_not_be_used_are_refused(evervec: Command, notes: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (
            (tmp_path / "nowhere",),
            "nowhere' can not be read: no such file or directory. Give an existing file or folder",
        ),
        ((notes, tmp_path / "nowhere"), "nowhere' can not be read"),
        (("",), "A PATH is empty. Give a file or folder"),
        ((), "Missing argument 'PATH'"),
        ((notes, "--include", ""), "The glob '' has no pattern."),
        ((notes, "--max-mb", "nan"), "--max-mb is nan."),
        ((notes, "--max-mb", "0"), "--max-mb is 0.0."),
        ((notes, "--dataset", "!!!"), "is not a usable name"),
    ):
        evervec("ingest", "files", *arguments).refused(words)
    assert evervec("status", "--json").document()["datasets"] == []


def test_other_filters_never_remove_what_other_paths_brought(evervec: Command, notes: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "page.md").write_text("# Page\n\nText.\n")
    ingest(evervec, notes)
    evervec("ingest", "files", other, "--dataset", "docs", "--include", "*.md").refused("Other filters would remove")
    assert ingest(evervec, other)["documents"]["deleted"] == 0
    assert evervec("status", "--json").document()["datasets"][0]["kinds"]["chunk"]["rows"] > 1


def test_a_folder_that_is_empty_of_a_sudden_deletes_nothing_unless_it_may(evervec: Command, notes: Path) -> None:
    ingest(evervec, notes)
    for path in notes.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    evervec("ingest", "files", notes, "--dataset", "docs").refused("Nothing is found at", "--full --allow-empty")
    assert hits(evervec, "what happens to a job that failed")
    assert ingest(evervec, notes, "--allow-empty")["documents"]["deleted"] == 2


def test_a_folder_that_was_renamed_does_not_lock_its_dataset(evervec: Command, notes: Path) -> None:
    first = ingest(evervec, notes)
    forget = ("index", "docs", "--full", "--allow-empty", "--json")
    moved = notes.rename(notes.with_name("papers"))
    evervec("index", "docs", "--full").refused("the only path of dataset files/docs", "--full --allow-empty` forgets")
    assert ingest(evervec, moved)["texts_sent"] == 0
    kept = evervec("index", "docs", "--full", "--json").document()
    assert (kept["documents"]["deleted"], kept["skipped"]["unreadable"]) == (0, 1)
    assert f"skipped {notes}: unreadable (no such file or directory)" in evervec("index", "docs", "--full").err
    gone = evervec(*forget).document()
    assert (gone["documents"]["deleted"], gone["full"]["texts"]) == (2, first["full"]["texts"])
    assert "unreadable" not in evervec(*forget).document()["skipped"]


async def test_a_run_that_is_at_work_is_named(evervec: Command, notes: Path, database: Database) -> None:
    index = partial(asyncio.to_thread, evervec)
    done = await index("ingest", "files", notes, "--dataset", "docs", "--json")
    dataset_id = UUID(done.document()["dataset_id"])
    async with database.transaction() as tx:
        run_id = await runs.add(tx, dataset_id, "full", "cli", state="running")
    async with held(database, runs.lease_name(dataset_id), 60):
        second = await index("ingest", "files", notes, "--dataset", "docs")
        second.refused("is already being indexed", str(run_id), code=1)
        (await index("index", "docs", "--no-wait")).refused(f"by run {run_id}", code=1)
    # whoever comes next finds that nobody has its lease, and finishes it first
    assert (await index("ingest", "files", notes, "--dataset", "docs")).code == 0
    states = {run["run"]: run["state"] for run in (await index("runs", "docs", "--json")).document()["runs"]}
    assert (len(states), states[str(run_id)]) == (3, "done")


@pytest.mark.parametrize(
    ("document", "line", "heading", "said"),
    [
        ("file:///srv/wiki/queue.md", 12, "Retries", "wiki/queue.md:12 Retries"),
        ("file:///srv/wiki/queue.md", 12, "What happens to a job that failed", "wiki/queue.md:12 What happe…"),
        (f"file:///srv/{'deep' * 9}/queue.md", 12, "Retries", "…eepdeepdeepdeep/queue.md:12"),
        ("orders/17", None, "", "orders/17"),
    ],
)
def test_a_place_is_short_and_keeps_file_and_line(
    monkeypatch: pytest.MonkeyPatch, document: str, line: int | None, heading: str, said: str
) -> None:
    monkeypatch.setattr(output, "out", Console(width=80))
    assert location(ChunkPlace(document, heading, line, line)) == said
