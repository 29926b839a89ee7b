"""Supervision: a server that dies comes back at the same address, and one that can not is not tried in a frenzy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from evervec.stack import Stack, open_stack, supervisor
from tests.stack.actors import (
    eventually,
    holder,
    kill_everything,
    leave,
    names_of,
    opened,
    pids,
    query,
    servers_of,
    settings,
    stored_messages,
)


@asynccontextmanager
async def supervised(home: Path) -> AsyncIterator[Stack]:
    stop = asyncio.Event()
    async with open_stack(settings(home)) as stack, asyncio.TaskGroup() as group:
        group.create_task(stack.supervise(stop))
        try:
            yield stack
        finally:
            stop.set()


async def test_killed_servers_come_back_at_the_same_addresses(home: Path) -> None:
    async with supervised(home) as stack:
        before, urls = pids(home), stack.urls
        for pid in before.values():
            psutil.Process(pid).kill()
        await eventually(lambda: _all_new(pids(home), before))
        assert stack.urls == urls
        assert await query(urls, "SELECT 1") == 1
        assert await stored_messages(urls) == 0
    assert servers_of(home) == []


async def test_two_supervisors_of_one_home_restart_a_server_once(home: Path) -> None:
    async with supervised(home), holder(home, "--supervise") as other:
        await opened(other)
        before = pids(home)
        kill_everything(home)
        await eventually(lambda: _all_new(pids(home), before))
        parents = [server for server in servers_of(home) if server.pid in pids(home).values()]
        assert len(parents) == 2
        assert await leave(other) == 0
        assert parents == [server for server in servers_of(home) if server in parents]


async def test_a_server_that_can_not_start_is_tried_ever_more_slowly(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    pause = supervisor.pause

    async def counted(stop: asyncio.Event, seconds: float) -> None:
        if seconds != supervisor.WATCH_SECONDS:
            delays.append(seconds)
        await pause(stop, 0.001)

    monkeypatch.setattr(supervisor, "pause", counted)
    async with supervised(home) as stack:
        configuration = home / "postgres" / "postgresql.conf"
        whole = configuration.read_text()
        configuration.write_text(whole + "no_such_setting = 1\n")
        psutil.Process(pids(home)["postgres"]).kill()
        await eventually(lambda: len(delays) >= 4)
        assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
        configuration.write_text(whole)
        await eventually(lambda: "postgres" in names_of(home))
        await eventually(lambda: (home / "postgres" / "postmaster.pid").exists())
        assert stack.urls.database_url


async def test_supervision_ends_when_it_is_told_to(home: Path) -> None:
    async with supervised(home):
        assert servers_of(home)
    assert servers_of(home) == []


def _all_new(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[server] not in (None, pid) for server, pid in before.items())
