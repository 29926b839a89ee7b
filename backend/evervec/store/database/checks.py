"""Requirements on a server, checked before anything is read or written; each has its own error."""

from typing import Protocol

from evervec.errors import SchemaMismatchError, ServerTooOldError
from evervec.store.database.connections import quoted

LEAST_POSTGRES = 15
LEAST_PGVECTOR = (0, 8, 4)
SCHEMA = "0020"


class Reads(Protocol):
    """The part of a transaction that a check needs."""

    async def fetchval(self, sql: str, *values: object) -> object:
        """Return the first column of the first row, or None."""
        ...


async def server(tx: Reads) -> None:
    """Raise `ServerTooOldError` if PostgreSQL or pgvector is too old to be trusted with vectors."""
    number = int(str(await tx.fetchval("SHOW server_version_num")))
    if number < LEAST_POSTGRES * 10_000:
        raise ServerTooOldError(
            server="PostgreSQL",
            found=await tx.fetchval("SHOW server_version"),
            least=LEAST_POSTGRES,
            why="older ones leave support, and pgvector is tested from there on",
        )
    version = await tx.fetchval(
        "SELECT coalesce((SELECT extversion FROM pg_extension WHERE extname = 'vector'), "
        "(SELECT default_version FROM pg_available_extensions WHERE name = 'vector'))"
    )
    if version is None or pgvector_version(str(version)) < LEAST_PGVECTOR:
        raise ServerTooOldError(
            server="pgvector",
            found=version or "(not installed)",
            least=".".join(map(str, LEAST_PGVECTOR)),
            why="0.8.2 closed CVE-2026-3172 (overflow in parallel HNSW builds) and 0.8.4 repairs HNSW graphs that "
            "lost rows under vacuum. Update the package, then run ALTER EXTENSION vector UPDATE",
        )


async def schema(tx: Reads, name: str) -> None:
    """Raise `SchemaMismatchError` unless exactly the migrations of this version of Evervec were applied to a schema."""
    found = await revision(tx, name)
    if found != SCHEMA:
        raise SchemaMismatchError(found=found or "none", wanted=SCHEMA)


async def revision(tx: Reads, name: str) -> object:
    """Return the revision of our tables in a schema, several if somebody made it so; None if there are none."""
    table = f"{quoted(name)}.alembic_version"
    if await tx.fetchval("SELECT to_regclass($1)", table) is None:
        return None
    return await tx.fetchval(f"SELECT string_agg(version_num, ',') FROM {table}")


def pgvector_version(text: str) -> tuple[int, ...]:
    """Return `'0.8.5'` as `(0, 8, 5)`; a part that is not a number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))
