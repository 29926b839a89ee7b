"""One list of addresses, and everything that is given an address takes all of them: real servers, TCP, TLS and sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest
from alembic import command

from evervec.errors import DatabaseAddressError, DatabaseDownError, DatabaseRefusedError
from evervec.store.address.connecting import connect
from evervec.store.database.session import Database
from evervec.store.foreign.reader import open_foreign
from evervec.store.schema import migrations
from tests.cli.command import Command
from tests.conftest import Servers, _sql
from tests.e2e.waiting import eventually
from tests.store.front import Certificates, Front, certify, front
from tests.store.shopping import THREE_ORDERS, described

TCP = "evervec@127.0.0.1:{plain}/{db}"
TLS = "evervec@localhost:{tls}/{db}"
ADDRESSES = {
    "socket": "postgresql://evervec@/{db}?host={folder}&port=5432",
    "socket as the host": "postgresql://evervec@{encoded}:5432/{db}",
    "socket by keywords": "host={folder} port=5432 user=evervec dbname='{db}'",
    "TCP": f"postgresql://{TCP}",
    "TCP by keywords": "hostaddr=127.0.0.1 port={plain} user=evervec dbname={db} sslmode=disable",
    "the other scheme": f"postgres://{TCP}?sslmode=prefer",
    "SQLAlchemy's": f"postgresql+asyncpg://{TCP}",
    "psycopg's": f"postgresql+psycopg://{TCP}",
    "IPv6": "postgresql://evervec@[::1]:{six}/{db}",
    "several hosts": "postgresql://evervec@127.0.0.1:{dead},127.0.0.1:{plain}/{db}?target_session_attrs=read-write",
    "several ports": "postgresql://evervec@/{db}?host=127.0.0.1,127.0.0.1&port={dead},{plain}",
    "a preferred standby": f"postgresql://{TCP}?target_session_attrs=prefer-standby&load_balance_hosts=random",
    "settings": f"postgresql://{TCP}?options=-c%20work_mem%3D8MB&application_name=mine&client_encoding=utf8",
    "a socket watched": f"postgresql://{TCP}?keepalives_idle=30&keepalives_count=3&tcp_user_timeout=5000",
    "Neon's": f"postgresql://{TLS}?sslmode=require&channel_binding=require&connect_timeout=10",
    "TLS that is preferred": f"postgresql://{TLS}?gssencmode=prefer&sslcompression=0",
    "TLS with the authority": f"postgresql://{TLS}?sslmode=verify-ca&sslrootcert={{ca}}",
    "TLS with the name": f"postgresql://{TLS}?sslmode=verify-full&sslrootcert={{ca}}&channel_binding=require",
    "TLS by the address": "host=localhost hostaddr=127.0.0.1 port={tls} user=evervec dbname={db} sslmode=verify-full "
    "sslrootcert={ca}",
    "TLS at once": "postgresql://evervec@localhost:{direct}/{db}?sslmode=require&sslnegotiation=direct",
    "TLS with a client's certificate": "postgresql://evervec@localhost:{asking}/{db}?sslmode=verify-full"
    "&sslrootcert={ca}&sslcert={client}.crt&sslkey={client}.key&ssl_min_protocol_version=TLSv1.3",
    "a service": "service=shop",
    "the environment": "postgresql://",
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certify(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture
def folder(servers: Servers) -> str:
    """Return the folder of the server's socket."""
    return parse_qs(urlsplit(servers.database_url).query)["host"][0]


@pytest.fixture
async def fronts(folder: str, certificates: Certificates) -> AsyncIterator[dict[str, Front]]:
    """Open the server's other addresses."""
    at, context = f"{folder}/.s.PGSQL.5432", certificates.context
    async with AsyncExitStack() as closing:
        yield {
            "plain": await closing.enter_async_context(front(at)),
            "six": await closing.enter_async_context(front(at, host="::1")),
            "tls": await closing.enter_async_context(front(at, context())),
            "direct": await closing.enter_async_context(front(at, context(), direct=True)),
            "asking": await closing.enter_async_context(front(at, context(asks=True))),
        }


@pytest.fixture
def fill(
    fronts: dict[str, Front],
    folder: str,
    certificates: Certificates,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """Return what puts this test's servers into an address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = taken.getsockname()[1]
    db = urlsplit(database_url).path[1:]
    ports = {name: one.port for name, one in fronts.items()}
    values = ports | {"dead": dead, "db": db, "folder": folder, "encoded": quote(folder, safe="")}
    values |= {"ca": str(certificates), "client": certificates.folder / "client"}
    services = tmp_path / "services"
    services.write_text(f"[shop]\nhost=localhost\nport={ports['tls']}\nuser=evervec\nsslmode=require\ndbname={db}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("HOME", str(tmp_path))

    def filled(address: str) -> str:
        if address == "postgresql://":
            for name, value in {"PGHOST": folder, "PGPORT": "5432", "PGUSER": "evervec", "PGDATABASE": db}.items():
                monkeypatch.setenv(name, value)
        return address.format(**values)

    return filled


async def by_database(url: str, servers: Servers) -> None:
    database = await Database(url).open()
    async with database.read() as tx:
        assert await tx.fetchval("SELECT count(*) FROM messages") == 0
    async with database.autocommit() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await database.aclose()


async def by_foreign_tables(url: str, servers: Servers) -> None:
    connection = await connect(url)
    await connection.execute(THREE_ORDERS)
    await connection.close()
    opened = await open_foreign(described(), url)
    await opened.aclose()


async def by_migrate(url: str, servers: Servers) -> None:
    environment = dict(os.environ) | {"EVERVEC_DATABASE_URL": url, "EVERVEC_NATS_URL": servers.nats_url}
    done = await asyncio.to_thread(Command(environment), "migrate")
    assert done.code == 0, done
    done.tidy()


async def by_alembic(url: str, servers: Servers) -> None:
    os.environ["EVERVEC_DATABASE_URL"] = url
    try:
        await asyncio.to_thread(command.upgrade, migrations.config(), "head")
    finally:
        del os.environ["EVERVEC_DATABASE_URL"]


@pytest.mark.parametrize("entry", [by_database, by_foreign_tables, by_migrate, by_alembic])
@pytest.mark.parametrize("address", ADDRESSES)
async def test_every_entry_takes_every_address(
    address: str, entry: Callable[[str, Servers], Awaitable[None]], fill: Callable[[str], str], servers: Servers
) -> None:
    await entry(fill(ADDRESSES[address]), servers)


async def test_what_an_address_says_is_so(fill: Callable[[str], str], fronts: dict[str, Front]) -> None:
    settings = "SELECT current_setting('work_mem') || ' ' || current_setting('application_name')"
    for address, wanted in {"settings": "8MB mine", "TCP": "4MB evervec"}.items():
        connection = await connect(fill(ADDRESSES[address]))
        assert await connection.fetchval(settings) == wanted
        await connection.close()
    for address in ("TLS with the name", "TLS by the address", "TLS that is preferred"):
        await (await connect(fill(ADDRESSES[address]))).close()
    assert fronts["tls"].encrypted == [True, True, True]
    assert fronts["tls"].names == ["localhost"] * 3
    assert set(fronts["plain"].encrypted) == {False}


async def test_the_socket_is_watched_as_the_address_says(fill: Callable[[str], str]) -> None:
    connection = await connect(fill(ADDRESSES["a socket watched"]))
    opened = connection._transport.get_extra_info("socket")
    assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
    assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
    await connection.close()
    connection = await connect(fill(f"postgresql://{TCP}?keepalives=0"))
    assert connection._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    await connection.close()


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        (f"postgresql://{TLS}?sslmode=verify-full", DatabaseAddressError, "sslrootcert=system"),
        (f"postgresql://{TLS}?sslrootcert=system", DatabaseRefusedError, "certificate verify failed"),
        ("postgresql://evervec@[::1]:{six}/{db}?sslmode=require", DatabaseRefusedError, "sslmode"),
        (f"postgresql://{TCP}?sslmode=require&channel_binding=require", DatabaseRefusedError, "sslmode"),
        (f"postgresql://{TLS}?sslmode=require&sslrootcert=/no/file", DatabaseAddressError, "sslrootcert, '/no/file'"),
        (f"postgresql://{TLS}?sslmode=require&sslcert=/no/file", DatabaseAddressError, "sslcert, '/no/file'"),
        ("host=127.0.0.2 hostaddr=127.0.0.1 port={tls} user=evervec dbname={db} sslmode=verify-full sslrootcert={ca}",
         DatabaseRefusedError, "certificate verify failed"),
        (f"postgresql://{TCP}?target_session_attrs=standby", DatabaseDownError, "target_session_attrs"),
        (f"postgresql://{TCP}?options=-c%20nonsense%3D1", DatabaseRefusedError, "nonsense"),
        ("service=nowhere", DatabaseAddressError, "its service 'nowhere'"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_the_server_is_told(
    address: str, error: type[Exception], words: str, fill: Callable[[str], str]
) -> None:
    with pytest.raises(error) as found:
        await Database(fill(address)).open()
    assert words in str(found.value)


async def test_a_database_that_is_read_only_is_not_taken_for_writing(
    fill: Callable[[str], str], servers: Servers, database_url: str
) -> None:
    name = urlsplit(database_url).path[1:]
    await _sql(servers.database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseDownError, match="target_session_attrs"):
        await Database(fill(f"postgresql://{TCP}?target_session_attrs=read-write")).open()
    await (await connect(fill(f"postgresql://{TCP}?target_session_attrs=read-only"))).close()


async def test_a_host_that_is_silent_costs_its_own_time_alone(fill: Callable[[str], str]) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = fill(f"postgresql://evervec@127.0.0.1:{port},{TCP.removeprefix('evervec@')}?connect_timeout=2")
    async with asyncio.timeout(60):
        database = await Database(url, connect_seconds=1).open()
    await database.aclose()
    gone.set()
    server.close()


def walled(rules: Path) -> str:
    """Let a role in by its password alone; return the rules as they were."""
    before = rules.read_text()
    rules.write_text(f"local all walled scram-sha-256\n{before}")
    return before


def password_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


async def test_passwords_are_found_where_libpq_finds_them_and_shown_nowhere(
    fill: Callable[[str], str], servers: Servers, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(servers.database_url)
    rules = Path(folder) / "pg_hba.conf"
    before = walled(rules)
    await connection.execute("CREATE ROLE walled LOGIN PASSWORD 'se:cret'; SELECT pg_reload_conf()")
    await connection.close()
    url = fill("postgresql://walled@127.0.0.1:{plain}/{db}")

    async def walled_off() -> bool:
        try:
            await (await asyncpg.connect(url)).close()
        except asyncpg.InvalidPasswordError:
            return True
        return False

    try:
        # it answers the call to read its rules again before it does
        await eventually("the server asks for the password", walled_off)
        kept = password_file(tmp_path / ".pgpass", "*:*:*:walled:se\\:cret\n")
        await (await connect(url)).close()
        kept.unlink()
        with pytest.raises(DatabaseRefusedError, match="password"):
            await Database(url).open()
        monkeypatch.setenv("PGPASSWORD", "se:cret")
        await (await connect(url)).close()
        with pytest.raises(DatabaseRefusedError) as refused:
            await Database(fill("postgresql://walled:wrong1@127.0.0.1:{plain}/{db}")).open()
        assert "wrong1" not in str(refused.value) + repr(refused.value.__cause__)
    finally:
        await asyncio.to_thread(rules.write_text, before)
        await _sql(servers.database_url, "DROP ROLE walled", "SELECT pg_reload_conf()")
