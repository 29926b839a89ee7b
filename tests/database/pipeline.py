"""The product through its own command line: text taken in, embedded, found, mirrored, and said to be in order."""

from collections.abc import Callable
from pathlib import Path

from tests.cli.command import Command, Done
from tests.cli.exports import message, write

MakeCommand = Callable[..., Command]
TEXTS = 30


def ran(done: Done, code: int = 0) -> Done:
    """Assert that a command ended as it should."""
    assert done.code == code, (done.out, done.err)
    done.tidy()
    return done


def fill(evervec: Command, folder: Path) -> None:
    """Take in messages and embed them."""
    path = write(folder, [message(number) for number in range(1, TEXTS + 1)])
    ran(evervec("ingest", "telegram", path, "--project", "river", "--dataset", "log"))
    told = ran(evervec("backfill", "--json")).document()
    assert (told["failed"], told["pending"]) == (0, 0)


def answers(evervec: Command, *, rows: int = TEXTS) -> None:
    """Assert that everything is embedded, found by both engines, and that mirrors agree with the database."""
    told = ran(evervec("status", "--json")).document()
    assert (told["rows"], told["embedded"], told["pending"], told["failed"]) == (rows, rows, 0, 0)
    for engine in ("pgvector", "auto"):
        found = ran(
            evervec("search", "migration holds a lock on the outbox table", "--engine", engine, "--json")
        ).document()
        assert "outbox table" in found["hits"][0]["text"]
    checked = evervec("mirror", "check", "--json")
    assert checked.code in (0, 1), checked
    again = ran(evervec("mirror", "check", "--json")).document()
    assert again["in_sync"], again


def works(evervec: Command, folder: Path) -> None:
    """Migrate, take in, embed, search, mirror: the whole way of a row."""
    ran(evervec("migrate"))
    fill(evervec, folder)
    answers(evervec)
