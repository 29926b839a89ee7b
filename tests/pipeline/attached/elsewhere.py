"""A second database of the tests' server, which is somebody else's: made, looked into, attached to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from evervec.pipeline.attached.attach import Attached
from evervec.pipeline.resources import Resources
from tests.conftest import NUMBERS, Servers, _sql
from tests.pipeline.attached.tables import TEXT, attached, open_articles

OBJECTS = """
SELECT 'function ' || proname FROM pg_proc WHERE proname LIKE 'evervec%'
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'evervec%'
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
"""


@dataclass(frozen=True)
class Elsewhere:
    """A database of somebody else: its address, and a connection of its own programs."""

    url: str
    psql: Any

    async def objects(self) -> list[str]:
        """Return what Evervec has there."""
        return sorted(row[0] for row in await self.psql.fetch(OBJECTS))

    async def records(self) -> int:
        """Return how many change records wait there."""
        return int(await self.psql.fetchval("SELECT count(*) FROM evervec_outbox.attached_changes"))

    async def attached(self, resources: Resources, **said: Any) -> Attached:
        """Attach its table of articles."""
        return await attached(resources, **{"url": self.url} | said)


@asynccontextmanager
async def elsewhere(servers: Servers, rows: int) -> AsyncIterator[Elsewhere]:
    """Make a database with articles, dropped at the end."""
    name = f"elsewhere_{next(NUMBERS)}"
    await _sql(servers.database_url, f"CREATE DATABASE {name} TEMPLATE template0")
    psql = await asyncpg.connect(servers.database(name))
    try:
        await open_articles(psql, rows)
        yield Elsewhere(servers.database(name), psql)
    finally:
        await psql.close()
        await _sql(servers.database_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@asynccontextmanager
async def reader(there: Elsewhere) -> AsyncIterator[str]:
    """Make a role that may read the articles and nothing else; yield the database's address with it."""
    role = f"reader_{next(NUMBERS)}"
    await there.psql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'r'; GRANT SELECT ON public.articles TO {role}")
    address = there.url.partition("://")[2].rpartition("@")[2]
    try:
        yield f"postgresql://{role}:r@{address}"
    finally:
        await there.psql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def texts_of(psql: Any, source_id: UUID | None) -> dict[str, str]:
    """Return what is kept of an attachment's rows, by their uris."""
    return {
        row["uri"]: row["text"]
        for row in await psql.fetch(
            "SELECT d.uri, string_agg(c.content, '' ORDER BY c.ordinal) AS text FROM evervec.documents d "
            "JOIN evervec.datasets s ON s.id = d.dataset_id JOIN evervec.chunks c ON c.document_id = d.id "
            "JOIN evervec.embeddings e ON e.kind = 4 AND e.row_id = c.id AND e.embedded_hash = e.content_hash "
            "WHERE s.source_id = $1 GROUP BY d.uri",
            source_id,
        )
    }


async def require_same(psql: Any, there: Elsewhere, done: Attached) -> None:
    """Require that every row there, and nothing else, is embedded here with its present text."""
    rows = await there.psql.fetch(f"SELECT id, {TEXT} AS text FROM public.articles")
    assert await texts_of(psql, done.id) == {f"public.articles/{row['id']}": row["text"] for row in rows}
