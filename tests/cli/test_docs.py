"""Every command that docs/cli.md and docs/mirror.md show is run, in its order, as its reader would: with `evervec up` beside it."""

import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from evervec.sources.demo import demo_chat_path
from tests.cli.command import Command
from tests.cli.conftest import bare_environment

PAGES = [Path(__file__).parents[2] / "docs" / name for name in ("cli.md", "mirror.md")]
STAYS = {"up", "worker", "scheduler", "api"}
PATIENCE = 60.0


def shown() -> list[list[str]]:
    """The commands of the pages' console blocks."""
    whole = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```console\n(.*?)^```", whole, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ evervec ") for line in lines), lines
    return [shlex.split(line)[2:] for line in lines]


def started(evervec: Command, arguments: list[str], sign: str) -> "Popen[str]":
    """A command that stays, once it says that it is there."""
    process = evervec.start(*arguments)
    assert process.stderr is not None
    said = ""
    while sign not in said:
        line = process.stderr.readline()
        assert line, (arguments, said)
        said += line
    return process


def stopped(process: "Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in err


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """A reader in a folder with an export, on a machine where `evervec up` runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo_chat_path(), tmp_path / "result.json")
    evervec = Command(bare_environment(EVERVEC_HOME=str(tmp_path / "home"), EVERVEC_API_PORT="0"))
    up = started(evervec, ["up"], "Up. Ctrl-C stops everything.")
    wait_until(evervec, lambda found: found["queue"]["worker_listens"])
    yield evervec
    stopped(up)


def wait_until(evervec: Command, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until something holds of `evervec status`."""
    ends = time.monotonic() + PATIENCE
    while not holds(found := evervec("status", "--json").document()):
        assert time.monotonic() < ends, found


def is_embedded(found: dict[str, Any]) -> bool:
    (knowledge,) = (one["knowledge"] for one in found["datasets"])
    return not (found["pending"] or knowledge["unscored"] or knowledge["unextracted"])


@pytest.mark.slow
def test_every_command_of_the_page_works(reader: Command) -> None:
    commands = [arguments for arguments in shown() if arguments[0] not in STAYS | {"demo"}]
    assert len(commands) > 20
    for arguments in commands:
        done = reader(*arguments)
        assert done.code == 0, (arguments, done)
        done.tidy()
        if "--json" in arguments:
            done.document()
        if arguments[0] == "ingest":
            assert "a worker is at it" in done.err or "--json" in arguments, done
            wait_until(reader, is_embedded)


@pytest.mark.slow
def test_the_commands_that_stay_come_up_and_stop_cleanly(evervec: Command) -> None:
    signs = {"worker": "Working.", "scheduler": "Scheduling.", "api": "Serving http://"}
    commands = [arguments for arguments in shown() if arguments[0] in signs]
    assert {arguments[0] for arguments in commands} == signs.keys()
    beside = Command(evervec.environment | {"EVERVEC_API_PORT": "0"})
    for process in [started(beside, arguments, signs[arguments[0]]) for arguments in commands]:
        stopped(process)


def test_every_command_is_on_the_page(evervec: Command) -> None:
    listed = re.findall(r"^│ (\w+) ", evervec("--help").out, re.MULTILINE)
    assert set(listed) == {arguments[0] for arguments in shown()}
