"""HNSW indexes: one a kind and space, built without blocking writers, dropped when the space is given up."""

import asyncpg

from evervec import log
from evervec.store.database import rights
from evervec.store.database.session import AutocommitConnection, Database, ReadTx
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable
from evervec.store.schema.triggers import OLD_INDEX

logger = log.get("hnsw")

VALID_INDEXES = """
SELECT c.relname AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = 'embeddings'::regclass AND i.indisvalid
"""
OLD_INDEXES = """
SELECT c.relname AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = 'embeddings'::regclass AND starts_with(c.relname, $1)
"""


def index_name(embeddable: Embeddable, space_id: int) -> str:
    """Return the name of the HNSW index of one kind in one space."""
    return f"embeddings_hnsw_{embeddable.name}_{space_id}"


async def build_indexes(database: Database, space_id: int, dimensions: int) -> None:
    """Build one HNSW index a kind without blocking writers; an invalid one left by a crash is built again.

    A role that does not own the table can do so only while no row has a vector; later it logs who can.
    """
    async with database.read() as tx:
        missing = await _missing_indexes(tx, space_id) or await tx.fetch(OLD_INDEXES, OLD_INDEX)
        owner = None if await rights.owns(tx, database.schema) else await rights.owner(tx, database.schema)
    if not missing:  # as a rule; and a pooler gives no session to build in
        return
    if owner is not None:
        await _build_as_guest(database, space_id, owner)
        return
    # one builder at a time: to a second one, an unfinished index looks like one left by a crash
    async with database.advisory_lock("hnsw"), database.autocommit() as connection:
        for embeddable in EMBEDDABLES:
            await _build_index(connection, embeddable, space_id, dimensions)
        for row in await connection.fetch(OLD_INDEXES, OLD_INDEX):  # searched until now
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row['name']}")


async def _missing_indexes(tx: ReadTx, space_id: int) -> list[str]:
    names = [index_name(embeddable, space_id) for embeddable in EMBEDDABLES]
    valid = {row["name"] for row in await tx.fetch(VALID_INDEXES)}
    return [name for name in names if name not in valid]


async def _build_as_guest(database: Database, space_id: int, owner: str) -> None:
    try:
        async with database.transaction() as tx:
            if await tx.fetchval("SELECT evervec_index_space($1)", space_id):
                return
    except asyncpg.DataError:  # vectors of another width that are gone, but not for every transaction
        logger.debug("indexes not built at once", space=space_id)
    async with database.read() as tx:
        missing = await _missing_indexes(tx, space_id)
    if missing:
        logger.warning(
            "searches are slow without indexes", missing=missing, advice=f"run `evervec migrate` as role {owner}"
        )


async def _build_index(
    connection: AutocommitConnection, embeddable: Embeddable, space_id: int, dimensions: int
) -> None:
    name = index_name(embeddable, space_id)
    if await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", name):
        return
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    await connection.execute(
        f"CREATE INDEX CONCURRENTLY {name} ON embeddings USING hnsw "
        f"((embedding::halfvec({dimensions:d})) halfvec_cosine_ops) WITH (m = 16, ef_construction = 64) "
        f"WHERE kind = {embeddable.kind:d} AND space_id = {space_id:d}"
    )


async def drop_indexes(database: Database, space_id: int) -> None:
    """Drop the HNSW indexes of a space: then every search is exact."""
    async with database.advisory_lock("hnsw"), database.autocommit() as connection:
        for embeddable in EMBEDDABLES:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index_name(embeddable, space_id)}")
