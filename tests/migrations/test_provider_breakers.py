"""A database with providers, one of them paused, gets circuit breakers, and gives the pauses back on the way down."""

from collections.abc import AsyncIterator

import pytest

from evervec.domain.endpoint import endpoint_digest
from evervec.store.database.session import Database
from evervec.store.schema import migrations
from tests.conftest import NUMBERS, Servers, _sql

BEFORE = """
WITH space AS (INSERT INTO embedding_spaces (provider, model, dimensions) VALUES ('ollama', 'm', 4) RETURNING id)
INSERT INTO llm_providers (name, type, base_url, model, api_key_encrypted, space_id, paused_until, pause_code, pause_error, failures)
SELECT v.name, v.type, v.url, 'm', v.key::bytea, space.id, v.until, v.code, v.error, v.failures FROM space, (VALUES
    ('one', 'ollama', 'http://a/', NULL, now() + interval '1 hour', 'transient', 'HTTP 503', 3),
    ('two', 'ollama', 'http://a', NULL, NULL, NULL, NULL, 0),
    ('three', 'ollama', 'http://b', NULL, NULL, NULL, NULL, 0),
    ('keyed', 'openai', NULL, 'sealed', now(), 'auth', 'HTTP 401', 1)) v (name, type, url, key, until, code, error, failures)
"""


@pytest.fixture
async def older(servers: Servers) -> AsyncIterator[Database]:
    """Make a database of the release before, with providers."""
    name = f"older_{next(NUMBERS)}"
    await _sql(servers.database_url, f"CREATE DATABASE {name}")
    opened = await Database(servers.database(name)).open(check=False)
    await migrations.upgrade(opened, "0009")
    async with opened.transaction() as tx:
        await tx.execute(BEFORE)
    yield opened
    await opened.aclose()
    await _sql(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_pauses_become_breakers_that_equal_endpoints_share(older: Database) -> None:
    await migrations.upgrade(older, "0010")
    async with older.read() as tx:
        found = {row["name"]: row["endpoint"] for row in await tx.fetch("SELECT name, endpoint FROM llm_providers")}
        breakers = {row["endpoint"]: row for row in await tx.fetch("SELECT * FROM provider_breakers")}
    assert found["one"] == found["two"] == endpoint_digest("ollama", "http://a", "m")
    assert len(set(found.values())) == 3
    assert set(breakers) == {found["one"], found["keyed"]}
    assert (breakers[found["one"]]["code"], breakers[found["one"]]["failures"]) == ("transient", 3)

    await migrations.downgrade(older, "0009")
    async with older.read() as tx:
        paused = {
            row["name"]: row["pause_code"] for row in await tx.fetch("SELECT name, pause_code FROM llm_providers")
        }
    assert paused == {"one": "transient", "two": "transient", "three": None, "keyed": "auth"}
