"""`evervec migrate` in a database that does not let it: a sentence with the next step, never a bug."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.cli.command import Command
from tests.conftest import NUMBERS, Servers, _sql

ROLE = "guest_of_migrate"


@pytest.fixture
async def bare(servers: Servers) -> AsyncIterator[str]:
    """Make an empty database, and a role that may connect to it and nothing else; return its name."""
    name = f"refusing_{next(NUMBERS)}"
    await _sql(servers.database_url, f"CREATE DATABASE {name}", f"CREATE ROLE {ROLE} LOGIN")
    yield name
    await _sql(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {ROLE}")


@pytest.fixture
def as_guest(servers: Servers, bare: str) -> str:
    """Return the address of that role."""
    parts = urlsplit(servers.database(bare))
    return parts._replace(netloc=f"{ROLE}@").geturl()


async def migrated(evervec: Command, url: str) -> tuple[str, ...]:
    """Run `evervec migrate` and return what it says of a refusal."""
    done = await asyncio.to_thread(evervec, "migrate", EVERVEC_DATABASE_URL=url)
    done.refused(code=1)
    return (" ".join(done.err.split()),)


async def test_a_server_without_pgvector_is_told_its_package(evervec: Command, servers: Servers, bare: str) -> None:
    # the setting of version 18 that says where extensions are: in this database there are none
    await _sql(servers.database_url, f"ALTER DATABASE {bare} SET extension_control_path = '/nowhere'")
    (said,) = await migrated(evervec, servers.database(bare))
    assert "This PostgreSQL 18 has no pgvector" in said
    assert "postgresql-18-pgvector" in said


async def test_a_role_that_may_not_create_the_schema_is_told_the_statement(evervec: Command, as_guest: str) -> None:
    (said,) = await migrated(evervec, as_guest)
    assert f'CREATE SCHEMA "evervec" AUTHORIZATION {ROLE};' in said


async def test_a_role_that_may_not_create_the_extension_is_told_the_statement(
    evervec: Command, servers: Servers, bare: str, as_guest: str
) -> None:
    await _sql(servers.database(bare), f"CREATE SCHEMA evervec AUTHORIZATION {ROLE}")
    (said,) = await migrated(evervec, as_guest)
    assert 'CREATE EXTENSION vector WITH SCHEMA "' in said
    await _sql(servers.database(bare), "CREATE EXTENSION vector")
    done = await asyncio.to_thread(evervec, "migrate", EVERVEC_DATABASE_URL=as_guest)
    assert done.code == 0, done


async def test_a_schema_of_another_role_is_named(evervec: Command, servers: Servers, bare: str, as_guest: str) -> None:
    await _sql(servers.database(bare), "CREATE SCHEMA evervec", "CREATE EXTENSION vector")
    (said,) = await migrated(evervec, as_guest)
    assert "permission denied for schema evervec" in said
    assert "Grant that" in said


async def test_a_table_of_another_program_in_our_schema_is_named(evervec: Command, servers: Servers, bare: str) -> None:
    await _sql(servers.database(bare), "CREATE SCHEMA evervec", "CREATE TABLE evervec.projects (id int)")
    (said,) = await migrated(evervec, servers.database(bare))
    assert 'relation "projects" already exists' in said
    assert "Another program has it" in said
