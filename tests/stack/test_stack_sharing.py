"""Many processes, one stack: who starts it, who stops it, and what Ctrl-C leaves behind."""

# ruff: noqa: ASYNC240 - to look at files and processes is what these tests are for

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from evervec.stack import open_stack
from tests.stack.actors import eventually, holder, leave, names_of, opened, pids, query, servers_of, settings


async def test_the_second_attaches_to_what_the_first_started(home: Path) -> None:
    async with open_stack(settings(home)) as first:
        started = pids(home)
        async with open_stack(settings(home)) as second:
            assert second.urls == first.urls
            assert pids(home) == started
        assert await query(first.urls, "SELECT 1") == 1


async def test_ctrl_c_in_the_terminal_does_not_reach_the_servers(home: Path) -> None:
    async with open_stack(settings(home)):
        assert servers_of(home)
        for server in servers_of(home):
            with suppress(ProcessLookupError):  # a backend that ends meanwhile
                assert os.getsid(server.pid) != os.getsid(0)


async def test_a_later_one_adds_the_server_that_the_first_did_not_need(home: Path) -> None:
    async with open_stack(settings(home), nats=False):
        async with open_stack(settings(home)):
            assert names_of(home) == {"postgres", "nats-server"}
        assert names_of(home) == {"postgres", "nats-server"}
    assert servers_of(home) == []


async def test_processes_that_open_at_once_share_one_stack_and_the_last_one_stops_it(fresh_home: Path) -> None:
    async with holder(fresh_home) as one, holder(fresh_home) as two, holder(fresh_home) as three:
        said = await asyncio.gather(opened(one), opened(two), opened(three))
        assert said[0] == said[1] == said[2]
        postmasters = [process for process in servers_of(fresh_home) if process.pid in pids(fresh_home).values()]
        assert len(postmasters) == 2
        assert await leave(one) == 0
        assert await leave(two) == 0
        assert set(postmasters) <= set(servers_of(fresh_home))
        assert await leave(three) == 0
        assert servers_of(fresh_home) == []


async def test_coming_and_going_at_once_never_pulls_the_stack_from_under_anyone(home: Path) -> None:
    async def visit(turn: int) -> int:
        async with open_stack(settings(home), nats=False) as stack:
            return int(await query(stack.urls, f"SELECT {turn}"))

    for _ in range(3):
        assert await asyncio.gather(*(visit(turn) for turn in range(8))) == list(range(8))
        assert servers_of(home) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
async def test_a_signal_to_the_last_process_leaves_nothing(home: Path, number: signal.Signals, code: int) -> None:
    async with holder(home) as process:
        await opened(process)
        os.killpg(process.pid, number)
        assert await asyncio.wait_for(process.wait(), 60) == code
        assert servers_of(home) == []


async def test_a_signal_in_the_middle_of_the_first_start_leaves_nothing(fresh_home: Path) -> None:
    async with holder(fresh_home) as process:
        await eventually(lambda: bool(list(fresh_home.glob("postgres.new-*"))))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 143
        assert servers_of(fresh_home) == []
        assert list(fresh_home.glob("postgres.new-*")) == []
    async with open_stack(settings(fresh_home)) as stack:
        assert await query(stack.urls, "SELECT 1") == 1


async def test_a_killed_process_leaves_the_servers_to_the_next_one(home: Path) -> None:
    async with holder(home) as process:
        said = await opened(process)
        running = pids(home)
        process.kill()
        await process.wait()
    assert all(psutil.pid_exists(pid) for pid in running.values())
    async with open_stack(settings(home)) as stack:
        assert pids(home) == running
        assert stack.urls.nats_url == said["nats"]
    assert servers_of(home) == []
