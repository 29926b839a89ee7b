"""Opening the stack: what is started, what is used, what is said when it can not be."""

# ruff: noqa: ASYNC240 - to look at files and processes is what these tests are for

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from random import sample

import psutil
import pytest
from pydantic import SecretStr

from evervec.errors import HomeNotWritableError, PortTakenError, ServerStartError, StackError
from evervec.stack import open_stack
from evervec.stack.nats.server import is_free
from tests.stack.actors import (
    holder,
    leave,
    names_of,
    opened,
    pids,
    publish,
    query,
    servers_of,
    settings,
    stored_messages,
)


async def test_it_starts_postgresql_18_with_pgvector_and_nats_and_leaves_no_process(fresh_home: Path) -> None:
    async with open_stack(settings(fresh_home)) as stack:
        assert int(await query(stack.urls, "SHOW server_version_num")) // 10_000 == 18
        installable = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
        assert (await query(stack.urls, installable)) >= "0.8.4"
        assert await query(stack.urls, "SELECT current_database()") == "evervec"
        assert await stored_messages(stack.urls) == 0
        assert servers_of(fresh_home)
    assert servers_of(fresh_home) == []
    assert pids(fresh_home) == {"postgres": None, "nats": None}


async def test_rows_and_messages_and_addresses_survive_a_restart(home: Path) -> None:
    async with open_stack(settings(home)) as stack:
        first = stack.urls
        await query(first, "CREATE TABLE kept AS SELECT 42 AS answer")
        await stored_messages(first)
        await publish(first)
    async with open_stack(settings(home)) as stack:
        assert stack.urls == first
        assert await query(stack.urls, "SELECT answer FROM kept") == 42
        assert await stored_messages(stack.urls) == 1


async def test_text_is_utf8_and_the_clock_is_utc_whatever_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGUSER": "eve", "PGDATA": "/", "LC_ALL": "POSIX", "TZ": "Asia/Tokyo"}.items():
        monkeypatch.setenv(name, value)
    async with open_stack(settings(home), nats=False) as stack:
        assert stack.urls.nats_url == ""
        assert await query(stack.urls, "SELECT upper('élan привет')") == "ÉLAN ПРИВЕТ"
        assert await query(stack.urls, "SHOW timezone") == "UTC"
        assert psutil.Process(pids(home)["postgres"]).environ().keys() & {"PGPORT", "PGUSER", "PGDATA"} == set()


async def test_servers_of_the_settings_are_used_and_nothing_is_started(fresh_home: Path) -> None:
    given = settings(fresh_home, database_url=SecretStr("postgresql://a/b"), nats_url=SecretStr("nats://c"))
    async with open_stack(given) as stack:
        assert (stack.urls.database_url, stack.urls.nats_url) == ("postgresql://a/b", "nats://c")
    assert not fresh_home.exists()


async def test_only_the_server_that_is_not_given_is_started(fresh_home: Path) -> None:
    given = settings(fresh_home, database_url=SecretStr("postgresql://a/b"), queue="nats")
    async with open_stack(given) as stack:
        assert stack.urls.database_url == "postgresql://a/b"
        assert names_of(fresh_home) == {"nats-server"}


async def test_with_a_database_alone_nothing_is_started_and_no_folder_is_made(fresh_home: Path) -> None:
    async with open_stack(settings(fresh_home, database_url=SecretStr("postgresql://a/b"))) as stack:
        assert (stack.urls.database_url, stack.urls.nats_url) == ("postgresql://a/b", "")
    assert not fresh_home.exists()


def users(home: Path) -> set[str]:
    """Return the user of each server of a home; a backend that ends meanwhile is left out."""
    found = set()
    for server in servers_of(home):
        with suppress(psutil.NoSuchProcess):
            found.add(server.username())
    return found


@pytest.mark.parametrize("name", ["with space", 'дом \'n "quotes" #, 50%', "long-" * 40])
async def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    async with open_stack(settings(home)) as stack:
        assert stack.urls.database_url.isascii()
        assert await query(stack.urls, "SELECT 1") == 1
        assert await stored_messages(stack.urls) == 0
    assert servers_of(home) == []


async def test_two_stacks_side_by_side_do_not_see_each_other(tmp_path: Path) -> None:
    async with open_stack(settings(tmp_path / "one")) as one, open_stack(settings(tmp_path / "two")) as two:
        await query(one.urls, "CREATE TABLE only_here ()")
        await stored_messages(one.urls)
        await publish(one.urls)
        assert await query(two.urls, "SELECT to_regclass('only_here')") is None
        assert await stored_messages(two.urls) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand its servers to another user")
async def test_root_runs_the_servers_as_nobody_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with open_stack(settings(closed / "home")) as stack:
        assert await query(stack.urls, "SELECT 1") == 1
        assert users(closed) == {"nobody"}
        assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_normal_user_runs_its_own_servers() -> None:
    home = Path(tempfile.mkdtemp(prefix="evervec-nobody-"))
    try:
        shutil.chown(home, "nobody")
        async with holder(home, "--as-nobody") as process:
            assert (await opened(process))["uid"] == home.stat().st_uid
            assert users(home) == {"nobody"}
            assert await leave(process) == 0
        assert servers_of(home) == []
    finally:
        shutil.rmtree(home)


async def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeNotWritableError, match=r"file.*can not be written.*Point EVERVEC_HOME"):
        async with open_stack(settings(tmp_path / "file")):
            pytest.fail("a file is no home")


@pytest.mark.parametrize("place", ["/proc/evervec", "/dev/null/evervec", "/sys/evervec"])
async def test_a_home_that_can_not_be_made_is_refused(place: str) -> None:
    with pytest.raises(HomeNotWritableError, match=place):
        async with open_stack(settings(Path(place))):
            pytest.fail("nothing can be written there")


async def test_the_wanted_port_is_used(fresh_home: Path) -> None:
    # whoever else runs these tests on this machine looks for a port, too
    port = next(port for port in sample(range(18_000, 28_000), 1_000) if is_free(port))
    async with open_stack(settings(fresh_home, nats_port=port), database=False) as stack:
        assert stack.urls.nats_url.endswith(f":{port}")
        assert stack.urls.database_url == ""


async def test_a_wanted_port_that_is_taken_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"Port {port} is taken.*EVERVEC_NATS_PORT"):
            async with open_stack(settings(home, nats_port=port)):
                pytest.fail("two servers can not share a port")
    assert servers_of(home) == []


async def test_a_server_that_does_not_start_is_quoted(home: Path) -> None:
    async with open_stack(settings(home), nats=False):
        pass
    with (home / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(ServerStartError, match=r"no_such_setting"):
        async with open_stack(settings(home)):
            pytest.fail("PostgreSQL refuses that")
    assert servers_of(home) == []


async def test_files_of_somebody_else_are_not_touched(fresh_home: Path) -> None:
    (fresh_home / "postgres").mkdir(parents=True)
    (fresh_home / "postgres" / "diary.txt").write_text("mine")
    with pytest.raises(StackError, match=r"in the way.*Move it"):
        async with open_stack(settings(fresh_home)):
            pytest.fail("that folder is no database")
    assert (fresh_home / "postgres" / "diary.txt").read_text() == "mine"
    assert list(fresh_home.glob("postgres.new-*")) == []


async def test_secrets_are_readable_by_the_owner_alone(fresh_home: Path) -> None:
    async with open_stack(settings(fresh_home)):
        secret = (fresh_home / "stack.json", fresh_home / "nats" / "nats.conf", fresh_home / "logs" / "nats.log")
        assert [path.stat().st_mode & 0o077 for path in secret] == [0, 0, 0]
        assert (fresh_home / "postgres").stat().st_mode & 0o077 == 0
