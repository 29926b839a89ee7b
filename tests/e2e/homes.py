"""An EVERVEC_HOME as an operator of one machine has it: the address of its database, for a connection of our own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from evervec.stack.postgres import cluster
from evervec.stack.postgres.server import PORT
from tests.e2e.waiting import eventually


@asynccontextmanager
async def connected(home: Path) -> AsyncIterator[Any]:
    """Connect to the home's database, waiting while the server comes up."""
    opened: list[Any] = []

    async def connects() -> bool:
        try:
            opened.append(
                await asyncpg.connect(
                    host=str(home / "postgres"), port=PORT, user=cluster.USER, database=cluster.DATABASE
                )
            )
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    await eventually("PostgreSQL takes connections", connects)
    try:
        yield opened[0]
    finally:
        # the server may be gone by now, so no goodbye is said
        opened[0].terminate()
