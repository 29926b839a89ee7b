"""A database as the life of a server treats it: clones of a migrated one, reached by psql, and roles that are gone afterwards."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.cli.conftest import bare_environment
from tests.conftest import NUMBERS, Servers, _sql
from tests.database.programs import Psql
from tests.database.rows import furnish

MakeRole = Callable[[str], str]


@pytest.fixture
def made_databases(servers: Servers) -> Iterator[Callable[..., Psql]]:
    """Return what makes a database, empty or a clone, and drops it afterwards."""
    names: list[str] = []

    def make(template: str | None = None) -> Psql:
        names.append(name := f"life_{next(NUMBERS)}")
        like = f"TEMPLATE {template} STRATEGY FILE_COPY" if template else ""
        # nothing of the product may rely on a path: neither its sessions nor those of others find anything by it
        path = f"ALTER DATABASE {name} SET search_path = ''"
        asyncio.run(_sql(servers.database_url, f"CREATE DATABASE {name} {like}", path))
        return Psql(servers.database(name))

    yield make
    asyncio.run(_sql(servers.database_url, *(f"DROP DATABASE {name} WITH (FORCE)" for name in names)))


@pytest.fixture
def sql(made_databases: Callable[..., Psql], template: str) -> Psql:
    """Return psql on a migrated, empty database."""
    return made_databases(template)


@pytest.fixture
def furnished(sql: Psql) -> Psql:
    """Return psql on a migrated database with two datasets."""
    furnish(sql)
    return sql


@pytest.fixture
def vacant(made_databases: Callable[..., Psql]) -> Psql:
    """Return psql on an empty database, never migrated."""
    return made_databases()


@pytest.fixture
def role(servers: Servers) -> Iterator[MakeRole]:
    """Return what makes a role of a name of its own; with all that it owns it is gone afterwards."""
    made: list[str] = []

    def make(attributes: str = "LOGIN") -> str:
        made.append(name := f"role_{next(NUMBERS)}")
        asyncio.run(_sql(servers.database_url, f"CREATE ROLE {name} {attributes}"))
        return name

    yield make
    for name in reversed(made):
        asyncio.run(_forget(servers, name))


async def _forget(servers: Servers, role: str) -> None:
    """Drop a role with all it owns and may do, in every database of this run."""
    import asyncpg

    connection = await asyncpg.connect(servers.database_url)
    databases = [row[0] for row in await connection.fetch("SELECT datname FROM pg_database WHERE datallowconn")]
    await connection.close()
    for name in databases:
        await _sql(servers.database(name), f"REASSIGN OWNED BY {role} TO evervec", f"DROP OWNED BY {role} CASCADE")
    await _sql(servers.database_url, f"DROP ROLE {role}")


@pytest.fixture
def evervec(servers: Servers, tmp_path: Path) -> Callable[[str], Command]:
    """Return what makes an `evervec` for the address of a database, with a stream and a home of its own."""

    def make(url: str, **more: str) -> Command:
        home = tmp_path / f"home_{next(NUMBERS)}"
        return Command(
            bare_environment(
                EVERVEC_HOME=str(home),
                EVERVEC_DATABASE_URL=url,
                EVERVEC_NATS_URL=servers.nats_url,
                EVERVEC_STREAM=f"LIFE_{next(NUMBERS)}",
                **more,
            )
        )

    return make
