"""The throw-away stack of a run: real servers as a user has them, and a database of its own for each benchmark."""

import os
import platform
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from evervec.domain.protocols import ModelProbe
from evervec.pipeline.resources import Resources
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings
from evervec.stack.stack import StackUrls, open_stack
from evervec.store import datasets, providers
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import hnsw
from evervec.store.providers import ProviderDraft, Space
from evervec.store.spaces import spaces

COLUMNS = ("dataset_id", "chat", "external_id", "author", "content")


@dataclass(frozen=True)
class Bench:
    """Where a benchmark runs: `quick` asks for a tenth of the rows, `most_rows` for so many at most.

    `questions` is a question set, `corpora` the texts that it is about, by name.
    """

    home: Path
    urls: StackUrls
    quick: bool
    most_rows: int | None = None
    questions: Path | None = None
    corpora: Mapping[str, Path] = field(default_factory=dict)

    def rows(self, count: int) -> int:
        """`count`, or a tenth of it, and not more than were asked for."""
        wanted = count // 10 if self.quick else count
        return wanted if self.most_rows is None else min(wanted, self.most_rows)

    @asynccontextmanager
    async def runtime(
        self, name: str, *, queue: bool = False, worker: bool = False, changed: Mapping[str, object] | None = None
    ) -> AsyncIterator[Runtime]:
        """Open a migrated database with the local provider as a worker or a command does; drop it afterwards.

        `changed` are settings other than their defaults.
        """
        await self._server(f"CREATE DATABASE bench_{name}")
        url = urlsplit(self.urls.database_url)._replace(path=f"/bench_{name}").geturl()
        settings = Settings(
            home=self.home / name,
            database_url=SecretStr(url),
            nats_url=SecretStr(self.urls.nats_url),
            stream=f"BENCH_{name.upper()}",
        ).model_copy(update=changed)
        async with open_runtime(settings, migrate=True, queue=queue, worker=worker) as runtime:
            yield runtime
        await self._server(f"DROP DATABASE bench_{name} WITH (FORCE)")
        await self._server("CHECKPOINT")

    @asynccontextmanager
    async def resources(self, name: str, *, queue: bool = False) -> AsyncIterator[Resources]:
        """Open the same, and yield its resources alone."""
        async with self.runtime(name, queue=queue) as runtime:
            yield runtime.resources

    async def _server(self, statement: str) -> None:
        connection = await asyncpg.connect(self.urls.database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def facts(self) -> dict[str, object]:
        """Return the machine and the versions."""
        connection = await asyncpg.connect(self.urls.database_url)
        try:
            server = await connection.fetchval("SHOW server_version")
            pgvector = await connection.fetchval(
                "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
            )
        finally:
            await connection.close()
        return {
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "Python": platform.python_version(),
            "PostgreSQL": server,
            "pgvector": pgvector,
            "load": round(os.getloadavg()[0], 1),
        }


@asynccontextmanager
async def open_bench(
    *,
    quick: bool,
    most_rows: int | None = None,
    questions: Path | None = None,
    corpora: Mapping[str, Path] | None = None,
) -> AsyncIterator[Bench]:
    """Start the stack in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="evervec-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        async with open_stack(Settings(home=home, database_url=None, nats_url=None, nats_port=None)) as stack:
            yield Bench(home, stack.urls, quick, most_rows, questions, corpora or {})


async def without_hnsw(resources: Resources) -> None:
    """Drop the HNSW indexes of the active space."""
    provider = await resources.provider()
    await hnsw.drop_indexes(resources.database, provider.space.id)


async def default_space(resources: Resources, dimensions: int) -> Space:
    """Make a space of that width, without HNSW indexes, the one that datasets get that are made afterwards."""
    async with resources.database.transaction() as tx:
        added = await providers.add(tx, ProviderDraft("wide", "ollama", model="wide"), ModelProbe(dimensions))
        await spaces.make_default(tx, added.space.id)
    return added.space


async def dataset(resources: Resources, name: str = "bench") -> DatasetRef:
    """Make a dataset to put rows into."""
    async with resources.database.transaction() as tx:
        return await datasets.ensure(tx, "bench", name)


async def copy_messages(
    resources: Resources, target: DatasetRef, texts: Sequence[str], table: str = "messages"
) -> None:
    """Binary COPY of texts as messages."""
    async with resources.database.transaction() as tx:
        await tx.copy(table, COLUMNS, ((target.id, "bench", str(n), "ada", text) for n, text in enumerate(texts)))


async def empty(resources: Resources, table: str = "messages") -> None:
    """Remove every message, and every record of one."""
    async with resources.database.transaction() as tx:
        if table == "messages":
            await tx.execute("TRUNCATE embeddings, embed_work, vector_tombstones")
        await tx.execute(f"TRUNCATE {table} CASCADE")
