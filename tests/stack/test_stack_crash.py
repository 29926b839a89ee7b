"""What a crash leaves behind does not keep the next start from working."""

# ruff: noqa: ASYNC220, ASYNC240 - to look at files and processes is what these tests are for

import asyncio
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest

from evervec.errors import StackError
from evervec.stack import Stack, open_stack, process
from evervec.stack.locks import try_lock
from tests.stack.actors import (
    eventually,
    has_child,
    holder,
    kill_everything,
    opened,
    pids,
    publish,
    query,
    servers_of,
    settings,
    stored_messages,
)


async def test_committed_rows_and_messages_survive_a_kill_of_everything(home: Path) -> None:
    async with holder(home) as victim:
        await opened(victim)
        async with open_stack(settings(home)) as stack:
            await query(stack.urls, "CREATE TABLE kept AS SELECT 42 AS answer")
            await stored_messages(stack.urls)
            await publish(stack.urls)
            before = stack.urls
            victim.kill()
            kill_everything(home)
    assert (home / "postgres" / "postmaster.pid").exists()
    async with open_stack(settings(home)) as stack:
        assert stack.urls == before
        assert await query(stack.urls, "SELECT answer FROM kept") == 42
        assert await stored_messages(stack.urls) == 1
    assert servers_of(home) == []


async def test_a_busy_child_of_a_killed_postmaster_does_not_block_the_next_start(home: Path) -> None:
    async with open_stack(settings(home), nats=False) as stack:
        connection = await asyncpg.connect(stack.urls.database_url)
        backend = psutil.Process(await connection.fetchval("SELECT pg_backend_pid()"))
        loop = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"
        busy = asyncio.ensure_future(connection.execute(loop))
        # The second one meets the postmaster alive and sees it die: the worst moment.
        postmaster = psutil.Process(pids(home)["postgres"])
        postmaster.send_signal(signal.SIGSTOP)
        again = Stack(settings(home), nats=False)
        opening = asyncio.ensure_future(again.open())
        await eventually(lambda: has_child("pg_isready"))
        postmaster.kill()
        async with asyncio.timeout(60):
            await opening
        try:
            assert await query(again.urls, "SELECT 1") == 1
            with suppress(psutil.NoSuchProcess):
                assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
        finally:
            await again.close()
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await busy
        connection.terminate()


@pytest.mark.parametrize(
    ("pid_file", "program"), [("postgres/postmaster.pid", "postgres"), ("nats/nats.pid", "nats-server")]
)
async def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(
    home: Path, tmp_path: Path, pid_file: str, program: str
) -> None:
    async with open_stack(settings(home)):
        pass
    namesake = shutil.copy(shutil.which("cat") or "/bin/cat", tmp_path / program)
    bystander = subprocess.Popen([namesake], cwd=tmp_path, stdin=subprocess.PIPE)
    try:
        (home / pid_file).write_text(f"{bystander.pid}\n/elsewhere\n0\n5432\n.\n\n\nready\n")
        async with open_stack(settings(home)) as stack:
            assert await query(stack.urls, "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.communicate(timeout=60)


async def test_a_data_folder_left_half_made_is_swept_away(fresh_home: Path) -> None:
    (fresh_home / "postgres.new-0abc").mkdir(parents=True)
    (fresh_home / "postgres.new-0abc" / "PG_VERSION").write_text("18\n")
    async with open_stack(settings(fresh_home), nats=False) as stack:
        assert await query(stack.urls, "SELECT 1") == 1
    assert list(fresh_home.glob("postgres.new-*")) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"nats": {"port": "x"}}'])
async def test_a_damaged_record_is_written_anew_even_while_the_servers_run(home: Path, damage: str) -> None:
    async with holder(home) as first:
        await opened(first)
        (home / "stack.json").write_text(damage)
        async with open_stack(settings(home)) as stack:
            assert await query(stack.urls, "SELECT 1") == 1
            assert await stored_messages(stack.urls) == 0


async def test_servers_held_by_another_container_are_not_started_twice(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SETTLE_SECONDS", 0.2)
    fresh_home.mkdir()
    elsewhere = [try_lock(fresh_home / "users.lock", shared=True), try_lock(fresh_home / "postgres.lock")]
    try:
        with pytest.raises(StackError, match="another container"):
            await Stack(settings(fresh_home), nats=False).open()
    finally:
        for descriptor in elsewhere:
            assert descriptor is not None
            os.close(descriptor)
    assert servers_of(fresh_home) == []


async def test_a_server_that_ignores_the_polite_signal_is_killed(home: Path) -> None:
    async with open_stack(settings(home, stop_seconds=0.2)):
        frozen = [psutil.Process(pid) for pid in pids(home).values()]
        for server in frozen:
            server.send_signal(signal.SIGSTOP)
    assert servers_of(home) == []
