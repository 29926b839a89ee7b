"""What only a process of its own can show: Ctrl-C, a closed stdout, a machine where nothing runs yet."""

import asyncio
import signal
import socket
import time
from pathlib import Path

import asyncpg
import psutil
import pytest

from evervec.pipeline.ingest.telegram import MESSAGES_TOGETHER
from tests.cli.command import Command
from tests.cli.conftest import bare_environment
from tests.cli.exports import message, write

PATIENCE = 60.0


async def count_messages(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM messages"))
    finally:
        await connection.close()


def wait_for_messages(url: str) -> None:
    ends = time.monotonic() + PATIENCE
    while asyncio.run(count_messages(url)) == 0:
        assert time.monotonic() < ends, "nothing was imported"


@pytest.mark.slow
def test_ctrl_c_keeps_whole_batches_and_the_next_import_goes_on(evervec: Command, tmp_path: Path) -> None:
    total = 60_000
    path = write(tmp_path, [message(number) for number in range(1, total + 1)])
    url = evervec.environment["EVERVEC_DATABASE_URL"]
    process = evervec.start("ingest", "telegram", path, "--json")
    wait_for_messages(url)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, ""), err
    assert "Interrupted. What is committed stays" in err
    assert "Traceback" not in err
    kept = asyncio.run(count_messages(url))
    assert 0 < kept < total
    assert kept % MESSAGES_TOGETHER == 0
    again = evervec("ingest", "telegram", path, "--json")
    assert (again.document()["unchanged"], again.document()["created"]) == (kept, total - kept)


def test_ctrl_c_while_everything_is_still_loading_is_quiet(evervec: Command) -> None:
    # a database that never answers: however late the signal comes, the command is not over
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://evervec@127.0.0.1:{silent.getsockname()[1]}/none"
        process = evervec.start("status", EVERVEC_DATABASE_URL=url, EVERVEC_CONNECT_SECONDS=600)
        ends = time.monotonic() + PATIENCE
        while not any("pydantic_core" in one.path for one in psutil.Process(process.pid).memory_maps()):
            assert time.monotonic() < ends, "it does not load"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_closed_stdout_is_no_crash(evervec: Command) -> None:
    with evervec.start("status", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(PATIENCE) in (0, 1)
    assert err == ""


def test_before_anything_is_there_status_says_how_to_begin(evervec: Command) -> None:
    empty = evervec("status")
    assert (empty.code, empty.err) == (0, "")
    assert empty.out.startswith("Nothing here yet. Start with `evervec demo`")


@pytest.mark.slow
def test_on_a_fresh_machine_an_import_says_what_comes_next_and_nothing_else(tmp_path: Path) -> None:
    evervec = Command(bare_environment(EVERVEC_HOME=str(tmp_path / "a home"), COLUMNS="80"))
    imported = evervec.process("ingest", "telegram", write(tmp_path, [message(n) for n in range(1, 31)]))
    assert (imported.code, imported.out.startswith("30 new")) == (0, True)
    assert imported.err == (
        "30 rows wait to be embedded and no worker is running. Run `evervec up` to have them scored, extracted and "
        "embedded, or `evervec backfill` to have them embedded at once.\n"
    )
    assert "No worker is running: start one with `evervec up`" in evervec.process("status").out
