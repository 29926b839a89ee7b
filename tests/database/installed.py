"""Installations as a database administrator makes them, and everything that a team does with one."""

import time
from pathlib import Path
from typing import Any

import orjson

from tests.cli.command import Command, Done
from tests.database.programs import Psql

FROZEN = Path(__file__).parent / "public_0005.sql"
"""What version 0.1.0 made in an empty database, as pg_dump wrote it down."""


def install_in_public(psql: Psql) -> None:
    """Make what the first version made: everything in `public`, at revision 0005."""
    psql.script(FROZEN.read_text())


def commands_of_a_day(evervec: Command, folder: Path) -> None:
    """Use the whole product once: text in, embedded, found, mirrored, reported, by commands and by a worker."""
    notes = folder / "notes"
    notes.mkdir()
    for number in range(3):
        (notes / f"{number}.md").write_text(f"# Note {number}\n\nThe delivery time of order {number} is wrong.")
    _done(evervec, "ingest", "files", notes, "--project", "mine", "--dataset", "notes")
    _done(evervec, "backfill")
    export = folder / "result.json"
    message = {"id": 1, "type": "message", "date": "2024-01-01T10:00:00", "from": "A", "text": "We decided to ship it."}
    export.write_bytes(orjson.dumps({"name": "team", "type": "private_group", "id": 1, "messages": [message]}))
    _done(evervec, "ingest", "telegram", export, "--project", "mine", "--dataset", "chat")
    _work(evervec)
    for words in (
        ("search", "wrong delivery time"),
        ("search", "wrong delivery time", "--engine", "exact"),
        ("duplicates",),
        ("mirror", "rebuild"),
        ("mirror", "check"),
        ("mirror", "status"),
        ("status",),
        ("batch", "list"),
        ("failed", "list"),
        ("runs",),
        ("index", "notes", "--full"),
        ("providers", "list"),
        ("backfill",),
        ("migrate",),
    ):
        _done(evervec, *words)
    found = _document(evervec, "search", "wrong delivery time")
    assert found["hits"][0]["dataset"] == "notes"


def _work(evervec: Command) -> None:
    """Run a worker until nothing is pending."""
    worker = evervec.start("worker")
    try:
        deadline = time.monotonic() + 60
        while _document(evervec, "status")["pending"]:
            assert worker.poll() is None, worker.communicate()
            assert time.monotonic() < deadline, "the worker does not embed"
    finally:
        worker.terminate()
        out, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, (out, err)
    assert "permission denied" not in err


def _done(evervec: Command, *words: object) -> Done:
    done = evervec(*words)
    assert done.code == 0, (words, done)
    assert "permission denied" not in done.err, (words, done)
    return done


def _document(evervec: Command, *words: object) -> Any:
    return _done(evervec, *words, "--json").document()
