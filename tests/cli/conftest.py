"""The command line against real servers: one database and one stream a test."""

import itertools
import os
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.conftest import Servers

NUMBERS = itertools.count()


def bare_environment(**changes: str) -> dict[str, str]:
    """Return the environment of this process without anything that configures Evervec or changes how it prints.

    No better local model is built in the background.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVERVEC_", "COLUMNS"))}
    return kept | {"EVERVEC_LOCAL_MODEL": "wordllama"} | changes


@pytest.fixture
def evervec(servers: Servers, database_url: str, tmp_path: Path) -> Command:
    """`evervec` with a migrated, empty database and a stream of its own."""
    return Command(
        bare_environment(
            EVERVEC_HOME=str(tmp_path / "home"),
            EVERVEC_DATABASE_URL=database_url,
            EVERVEC_NATS_URL=servers.nats_url,
            EVERVEC_STREAM=f"CLI_{next(NUMBERS)}",
        )
    )
