"""Boot checks: one clear line for a server that can not be trusted, or a schema that is not ours."""

from typing import Any

import pytest

from evervec.errors import SchemaMismatchError, ServerTooOldError
from evervec.store.database import checks
from evervec.store.database.session import Database


class Says:
    """Answers a check's questions as some other server would: only the versions are made up."""

    def __init__(self, postgres: str, pgvector: str | None) -> None:
        self.answers: dict[str, object] = {"server_version_num": postgres, "server_version": "14.2", "vector": pgvector}

    async def fetchval(self, sql: str, *values: object) -> object:
        """Return the answer whose name the question ends with, or contains."""
        exact = sql.rsplit(" ", 1)[-1]
        return self.answers.get(exact, self.answers["vector"])


@pytest.mark.parametrize("pgvector", ["0.8.4", "0.8.10", "0.9.0", "1.0"])
async def test_a_server_that_is_new_enough_passes(pgvector: str) -> None:
    await checks.server(Says("150000", pgvector))


async def test_an_old_postgresql_is_named_with_the_least_one() -> None:
    with pytest.raises(ServerTooOldError, match=r"PostgreSQL 14\.2 is too old, 15 is the least"):
        await checks.server(Says("140002", "0.8.5"))


@pytest.mark.parametrize("pgvector", ["0.8.3", "0.7.4", "0.8", "0.8.beta"])
async def test_an_old_pgvector_is_named_with_the_reason(pgvector: str) -> None:
    with pytest.raises(ServerTooOldError, match=r"pgvector .* is too old, 0\.8\.4 is the least: .*ALTER EXTENSION"):
        await checks.server(Says("180000", pgvector))


async def test_a_server_without_pgvector_says_that_it_is_not_installed() -> None:
    with pytest.raises(ServerTooOldError, match=r"pgvector \(not installed\)"):
        await checks.server(Says("180000", None))


async def test_the_server_of_these_tests_passes(database: Database) -> None:
    async with database.read() as tx:
        await checks.server(tx)
        await checks.schema(tx, "evervec")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "9999"),
        ("INSERT INTO alembic_version VALUES ('9999')", f"{checks.SCHEMA},9999"),
        ("DELETE FROM alembic_version", "none"),
        ("DROP TABLE alembic_version", "none"),
    ],
)
async def test_another_schema_is_refused_with_the_next_step(
    psql: Any, database: Database, statement: str, found: str
) -> None:
    await psql.execute(statement)
    with pytest.raises(SchemaMismatchError, match=f"has schema {found}, .*evervec migrate"):
        await Database(database.url).open()
