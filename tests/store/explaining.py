"""Plans as PostgreSQL makes them: for the values at hand, and the generic one that a prepared statement ends up with."""

import itertools
from typing import Any

NUMBERS = itertools.count()


async def plans(connection: Any, sql: str, *values: object) -> list[str]:
    """Return the plan for these values, then the plan for any: what a pooled connection uses after a few calls."""
    return [lines(await connection.fetch(f"EXPLAIN {sql}", *values)), await generic(connection, sql)]


async def generic(connection: Any, sql: str) -> str:
    """Return the plan for any values."""
    name = f"plan_{next(NUMBERS)}"
    await connection.execute(f"PREPARE {name} AS {sql}")
    types = await connection.fetchval(
        "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = $1", name
    )
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    try:
        values = f"({', '.join(f'NULL::{one}' for one in types)})" if types else ""
        return lines(await connection.fetch(f"EXPLAIN EXECUTE {name}{values}"))
    finally:
        await connection.execute(f"RESET plan_cache_mode; DEALLOCATE {name}")


def lines(rows: list[Any]) -> str:
    """Join the rows of an EXPLAIN to one text."""
    return "\n".join(row[0] for row in rows)
