"""Every command that these pages of docs/ show is run, in its order, as its reader would: with `evervec up` beside it."""

import asyncio
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

from evervec.settings import Settings
from evervec.sources.telegram.demo import demo_chat_path
from evervec.stack.stack import open_stack
from tests.cli.command import Command
from tests.cli.conftest import bare_environment
from tests.cli.own_vectors import reviews
from tests.conftest import _sql

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("cli.md", "indexing.md", "mirror.md", "search.md", "attach.md")]
STAYS = {"up", "worker", "scheduler", "api", "watch"}
PATIENCE = 60.0

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, number text, customer text, status text, comment text, seller_id bigint,
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now()
);
INSERT INTO shop.orders VALUES (17, 'A-17', 'Mara', 'late', 'Where is it?', 7), (23, 'A-23', 'Jo', 'sent', NULL, 8);
CREATE TABLE public.articles (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, body text);
INSERT INTO public.articles (title, body) VALUES ('Where parcels wait', 'A parcel that nobody takes waits for a week.'), ('Empty', NULL);
CREATE TABLE public.tickets (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant int, subject text, body text, status text, priority int, spam bool);
INSERT INTO public.tickets (tenant, subject, body, spam) VALUES (1, 'Late', 'It is late.', false), (2, 'Buy now', 'Cheap!', true);
"""


def shown() -> list[list[str]]:
    """Return the commands of the pages' console blocks. A script of ours that stands there has tests of its own."""
    whole = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```console\n(.*?)^```", whole, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[0] == "$" and (line[1] == "evervec" or (ROOT / line[1]).is_file()) for line in lines), lines
    return [line[2:] for line in lines if line[1] == "evervec"]


def started(evervec: Command, arguments: list[str], sign: str) -> "Popen[str]":
    """Start a command that stays, and wait until it says that it is ready."""
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the reader's folder: an export, notes, and the description of a shop as docs/indexing.md has it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo_chat_path(), tmp_path / "result.json")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "retry.md").write_text("# Retrying\n\nA failed job is tried again.\n")
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```", PAGES[1].read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.yaml").write_text(yaml)
    return tmp_path


async def open_shop(home: Path) -> str:
    """Make the shop's table in the database of a stack that runs; answers its address."""
    async with open_stack(Settings(home=home, database_url=None, nats_url=None), nats=False) as stack:
        await _sql(stack.urls.database_url, SHOP, await reviews("{title}: {text}"))  # as indexing.md has it
        return stack.urls.database_url


@pytest.fixture
def reader(folder: Path) -> Iterator[Command]:
    """Return a reader in that folder, on a machine where `evervec up` runs."""
    evervec = Command(bare_environment(EVERVEC_HOME=str(folder / "home"), EVERVEC_API_PORT="0"))
    up = started(evervec, ["up"], "Up. Ctrl-C stops everything.")
    wait_until(evervec, lambda found: found["queue"]["worker_listens"])
    yield Command(evervec.environment | {"SHOP_URL": asyncio.run(open_shop(folder / "home"))})
    stopped(up)


def wait_until(evervec: Command, holds: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until something holds of `evervec status`."""
    ends = time.monotonic() + PATIENCE
    while not holds(found := evervec("status", "--json").document()):
        assert time.monotonic() < ends, found


def is_embedded(found: dict[str, Any]) -> bool:
    unread = [one["knowledge"][what] for one in found["datasets"] for what in ("unscored", "unextracted")]
    building = [one for one in found["builds"] if one["automatic"] and one["state"] == "next"]
    return not (found["pending"] or building or any(unread))


@pytest.mark.slow
def test_every_command_of_the_page_works(reader: Command) -> None:
    commands = [arguments for arguments in shown() if arguments[0] not in STAYS | {"demo", "uninstall"}]
    assert len(commands) > 20
    for arguments in commands:
        done = reader(*arguments)
        assert done.code == 0, (arguments, done)
        done.tidy()
        if "--json" in arguments:
            done.document()
        if arguments[0] == "ingest":
            assert arguments[1] != "telegram" or "a worker is at it" in done.err or "--json" in arguments, done
        if arguments[0] == "ingest" or "--reembed" in arguments:
            wait_until(reader, is_embedded)


@pytest.mark.slow
def test_the_commands_that_stay_come_up_and_stop_cleanly(evervec: Command, folder: Path) -> None:
    signs = {"worker": "Working.", "scheduler": "Scheduling.", "api": "Serving http://", "watch": "Watching."}
    commands = [arguments for arguments in shown() if arguments[0] in signs]
    assert {arguments[0] for arguments in commands} == signs.keys()
    beside = Command(evervec.environment | {"EVERVEC_API_PORT": "0"})
    for process in [started(beside, arguments, signs[arguments[0]]) for arguments in commands]:
        stopped(process)


def test_what_the_page_removes_is_removed(evervec: Command) -> None:
    commands = [arguments for arguments in shown() if arguments[0] == "uninstall"]
    assert commands
    for arguments in commands:
        done = evervec(*arguments)
        assert done.code == 0, (arguments, done)


def test_every_command_is_on_the_page(evervec: Command) -> None:
    listed = re.findall(r"^│ (\w+) ", evervec("--help").out, re.MULTILINE)
    assert set(listed) == {arguments[0] for arguments in shown()}
