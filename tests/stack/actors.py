"""What the stack's tests do to servers from outside: look at their processes, kill them, talk to them, run holders."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import nats
import psutil

from evervec.settings import Settings
from evervec.stack import StackUrls

HOLDER = Path(__file__).with_name("holder.py")
DEADLINE = 60.0


def settings(home: Path, **values: Any) -> Settings:
    """Return settings of this home alone, whatever the environment."""
    return Settings(home=home, **{"database_url": None, "nats_url": None, **values})


def servers_of(home: Path) -> list[psutil.Process]:
    """Return every live server process that works below `home`, children included."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.name() in ("postgres", "nats-server") and process.status() != psutil.STATUS_ZOMBIE
            if ours and Path(process.cwd()).is_relative_to(home.resolve()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def names_of(home: Path) -> set[str]:
    """Return the names of the live server processes that work below `home`; one that ends meanwhile is left out."""
    return {name for server in servers_of(home) if (name := _named(server))}


def has_child(name: str) -> bool:
    """Return whether this process has a child of that name."""
    return any(_named(child) == name for child in psutil.Process().children())


def _named(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""


def pids(home: Path) -> dict[str, int]:
    """Return the pids of stack.json, by server."""
    record = json.loads((home / "stack.json").read_text())
    return {server: entry["pid"] for server, entry in record.items()}


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fails after the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


async def query(urls: StackUrls, sql: str) -> Any:
    """Return the first value of the database's answer."""
    connection = await asyncpg.connect(urls.database_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def stored_messages(urls: StackUrls) -> int:
    """Count the messages of the stream `bells`, which is created when there is none."""
    client = await nats.connect(urls.nats_url, allow_reconnect=False)
    try:
        stream = await client.jetstream().add_stream(name="bells", subjects=["bells"])
        return int(stream.state.messages)
    finally:
        await client.close()


async def publish(urls: StackUrls) -> None:
    """Put one message into the stream `bells`."""
    client = await nats.connect(urls.nats_url, allow_reconnect=False)
    try:
        await client.jetstream().publish("bells", b"ding")
    finally:
        await client.close()


@asynccontextmanager
async def holder(home: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a process that opens the stack and keeps it; ended by the test or killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        HOLDER,
        home,
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def opened(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return what the holder says once its stack is open."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
    return dict(json.loads(line))


async def leave(process: asyncio.subprocess.Process) -> int:
    """Tell the holder to go; its exit code."""
    assert process.stdin is not None
    process.stdin.close()
    return await asyncio.wait_for(process.wait(), DEADLINE)


def kill_everything(home: Path) -> None:
    """Kill every server process of this home at once with kill -9."""
    for process in servers_of(home):
        process.kill()
