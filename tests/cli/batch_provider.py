"""`evervec` with the fake as a provider that has a batch API, and rows for it."""

from pathlib import Path
from typing import Any

from evervec.store import secrets
from tests.cli.command import Command
from tests.cli.exports import message, write
from tests.fakes.server import FakeProvider

API_KEY = "a-key"
PRICE = 150
"""Dollars per million tokens: so much that a few rows cost something that is seen."""


def with_provider(evervec: Command, fake: FakeProvider, type_: str) -> Command:
    """Return the command with the fake as its active provider of this type; the key is asked for once, and sealed."""
    asked = Command(evervec.environment | {"EVERVEC_SECRET_KEY": secrets.new_key(), "EVERVEC_PROVIDER_KEY": API_KEY})
    about = ("--base-url", fake.url, "--model", "embedder", "--price", PRICE)
    done = asked("providers", "add", type_, "--type", type_, *about)
    assert done.code == 0, done
    return Command({name: value for name, value in asked.environment.items() if name != "EVERVEC_PROVIDER_KEY"})


def ingest(evervec: Command, folder: Path, count: int, *more: object) -> dict[str, Any]:
    """So many messages, each its own text; answers the document of the command."""
    path = write(folder, [message(number, f"Note {number} of many.") for number in range(1, count + 1)])
    done = evervec("ingest", "telegram", path, "--dataset", "chat", "--json", *more)
    assert done.code == 0, done
    found: dict[str, Any] = done.document()
    return found


def jobs(evervec: Command) -> list[dict[str, Any]]:
    """Return what `batch list` shows, newest first."""
    found: list[dict[str, Any]] = evervec("batch", "list", "--json").document()["jobs"]
    return found


def embedded(evervec: Command) -> int:
    """How many rows have a vector of their text."""
    return int(evervec("status", "--json").document()["embedded"])
