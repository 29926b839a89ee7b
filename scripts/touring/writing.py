"""The writer of the tour: inserts, edits, deletes and touches rows at a steady rate, and remembers which texts are new."""

import asyncio
import random
from time import monotonic
from typing import Any

import asyncpg

from scripts.touring.tables import TABLES, TourTable


class Writer:
    """Writes to the tables of the tour as any program would, one statement a transaction."""

    def __init__(self, connection: Any, *, rows: int, seed: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._keys: dict[str, list[str]] = {}
        self._next, self._first = rows // len(TABLES) + 1, rows // len(TABLES)
        self.new_texts: set[tuple[str, str]] = set()
        self.written = 0

    async def connected(self, url: str) -> None:
        """Connect again where the server was restarted."""
        if self._connection.is_closed():
            self._connection = await asyncpg.connect(url)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def fill(self) -> None:
        """Make the schema with its rows."""
        await self._connection.execute("CREATE SCHEMA tour")
        for table in TABLES:
            await self._connection.execute(table.ddl)
            rows = await self._connection.fetch(table.insert(), 1, self._first)
            self._keys[table.name] = [row[0] for row in rows]
        await self._connection.execute("ANALYZE")

    async def write(self, rate: float, finish: asyncio.Event) -> None:
        """Write `rate` rows a second until `finish` is set."""
        started, count = monotonic(), 0
        while not finish.is_set():
            await self._one(self._random.choice(TABLES))
            count += 1
            self.written += 1
            ahead = started + count / rate - monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)

    async def _one(self, table: TourTable) -> None:
        keys = self._keys[table.name]
        place = self._random.randrange(len(keys))
        self._next += 1
        match self._random.choices(("insert", "edit", "delete", "touch"), (4, 3, 2, 1))[0]:
            case "insert":
                key = await self._connection.fetchval(table.insert(), self._next, self._next)
                keys.append(key)
                self.new_texts.add((table.name, key))
            case "edit":
                await self._connection.execute(table.edit(), keys[place], self._next)
                self.new_texts.add((table.name, keys[place]))
            case "delete":
                await self._connection.execute(table.delete(), keys[place])
                self.new_texts.discard((table.name, keys[place]))
                keys[place] = keys[-1]
                keys.pop()
            case _:
                await self._connection.execute(table.touch(), keys[place])
