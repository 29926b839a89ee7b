"""One process of a mirror benchmark: rebuild, start or write, and print on stdout what it took."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import orjson
import typer
import uvloop
from pydantic import SecretStr

from evervec import log
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.queue.nats_doorbell import NatsDoorbell
from evervec.settings import Settings
from evervec.store import datasets
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import vector_wire
from scripts.bench import mirror_rows
from scripts.bench.mirror_rows import Rows

WRITE = """
UPDATE embeddings SET embedding = v.vector, changed_xid = pg_current_xact_id()
FROM unnest($1::bigint[], $2::vector[]) AS v (id, vector)
WHERE embeddings.vector_id = v.id AND embeddings.vector_id = ANY($1)
RETURNING changed_xid::text::bigint
"""
POOL = 1000
"""So many different vectors are written, again and again."""

command = typer.Typer(add_completion=False)


async def run_child(resources: Resources, *arguments: str) -> dict[str, Any]:
    """Run one command in a process of its own; return what it printed. Raises `RuntimeError` when it fails."""
    return await answer(await started(resources, *arguments))


async def started(resources: Resources, *arguments: str) -> asyncio.subprocess.Process:
    """Start one command in a process of its own, with the database, the queue and the mirrors of this one."""
    settings = resources.settings
    environment = {
        **os.environ,
        "EVERVEC_DATABASE_URL": resources.database.url,
        "EVERVEC_NATS_URL": settings.nats_url.get_secret_value() if settings.nats_url else "",
        "EVERVEC_STREAM": settings.stream,
        "EVERVEC_HOME": str(settings.home),
    }
    pipe = asyncio.subprocess.PIPE
    module = ("-m", "scripts.bench.mirror_process", *arguments)
    return await asyncio.create_subprocess_exec(sys.executable, *module, env=environment, stdout=pipe, stderr=pipe)


async def answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return what a process printed at its end. Raises `RuntimeError` if it failed."""
    said, trouble = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"a process of the benchmark failed: {trouble.decode()[-2000:]}")
    found: dict[str, Any] = orjson.loads(said)
    return found


@command.command()
def rebuild(dataset: str) -> None:
    """From the database to the first answer of the new mirror, and what memory that took at most."""
    _run(_rebuild(dataset))


async def _rebuild(name: str) -> dict[str, Any]:
    from evervec.mirror.index import DatasetIndex

    async with _opened(queue=False) as resources:
        dataset = await _find(resources, name)
        searcher, before = resources.mirrors.searcher, _kilobytes("VmRSS")
        started = perf_counter()
        mirror = await resources.mirrors.rebuild(dataset, "measured")
        built = perf_counter()
        if not isinstance(mirror.index, DatasetIndex):
            raise RuntimeError(mirror.reason)
        snapshot = mirror.index.snapshot
        found = await searcher.search(snapshot, np.ones(snapshot.dimensions, np.float32), 10)
        taken = perf_counter() - started
        on_disk = resources.mirrors.folder.describe(dataset.project_id, dataset.id) or {}
        return {
            "vectors": len(snapshot),
            "hits": len(found.ids),
            "seconds": taken,
            "first_search_ms": (perf_counter() - built) * 1000,
            "peak_bytes": (_kilobytes("VmHWM") - before) * 1024,
            "held_bytes": mirror.memory,
            "file_bytes": on_disk.get("bytes", 0),
            "factory": snapshot.main.factory,
            "recall": snapshot.main.tuning.recall,
        }


@command.command()
def start() -> None:
    """From the moment of following until every dataset is searched and checked."""
    _run(_start())


async def _start() -> dict[str, Any]:
    async with _opened(queue=True) as resources:
        async with resources.database.read() as tx:
            live = [dataset for dataset in await datasets.live(tx) if dataset.project == "bench"]
        started = perf_counter()
        async with mirror_rows.following(resources) as mirrors:
            await mirror_rows.ready(mirrors, *live)
            taken = perf_counter() - started
            held = [mirrors.mirror(dataset).index for dataset in live]
            return {"seconds": taken, "datasets": len(live), "vectors": sum(len(index) for index in held if index)}


@command.command()
def write(
    dataset: str,
    rate: Annotated[float, typer.Option(help="Vectors a second.")] = 1000,
    size: Annotated[int, typer.Option(help="Vectors a transaction.")] = 1,
    seconds: Annotated[float, typer.Option(help="For so long.")] = 10,
    connections: Annotated[int, typer.Option(help="So many transactions at a time.")] = 4,
) -> None:
    """Give vectors of a dataset new values, each transaction followed by the doorbell; print when each was committed."""
    _run(_write(dataset, rate, size, seconds, connections))


async def _write(name: str, rate: float, size: int, seconds: float, connections: int) -> dict[str, Any]:
    async with _opened(queue=True) as resources:
        dataset = await _find(resources, name)
        writing = await _Writing.over(resources, dataset, size)
        await asyncio.gather(
            *(writing.part(n, connections, size * connections / rate, seconds) for n in range(connections))
        )
        # two lists, not a list of pairs: a hundred thousand small lists would take longer to print
        return {"xids": [xid for xid, _ in writing.commits], "times": [at for _, at in writing.commits], "size": size}


class _Writing:
    """Writes in turns over the vectors of a dataset."""

    def __init__(self, resources: Resources, dataset: DatasetRef, ids: Sequence[int], values: Rows, size: int) -> None:
        self.commits: list[tuple[int, float]] = []
        self._resources, self._dataset = resources, dataset
        self._ids, self._packed, self._size = ids, vector_wire.pack(values), size

    @classmethod
    async def over(cls, resources: Resources, dataset: DatasetRef, size: int) -> "_Writing":
        async with resources.database.read() as tx:
            rows = await tx.fetch("SELECT vector_id FROM embeddings WHERE dataset_id = $1 ORDER BY 1", dataset.id)
            dimensions = await tx.fetchval("SELECT dimensions FROM embedding_spaces WHERE state = 'active'")
        made = np.random.default_rng(5).standard_normal((POOL + size, dimensions), np.float32)
        values = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
        return cls(resources, dataset, [row["vector_id"] for row in rows], values, size)

    async def part(self, number: int, of: int, pause: float, seconds: float) -> None:
        """Every `pause` seconds one transaction; who is late does not wait."""
        start = perf_counter() + pause * number / of
        for turn in range(int(seconds / pause)):
            await asyncio.sleep(max(0.0, start + turn * pause - perf_counter()))
            await self._one((turn * of + number) * self._size)

    async def _one(self, at: int) -> None:
        first, value = at % (len(self._ids) - self._size + 1), at % POOL
        async with self._resources.database.transaction() as tx:
            ids, new = self._ids[first : first + self._size], self._packed[value : value + self._size]
            xid = await tx.fetchval(WRITE, ids, new)
        self.commits.append((xid, perf_counter()))
        await self._resources.doorbell.changed([self._dataset.id])


async def _find(resources: Resources, name: str) -> DatasetRef:
    async with resources.database.read() as tx:
        [found] = await datasets.find(tx, name)
    return found


@asynccontextmanager
async def _opened(*, queue: bool) -> AsyncIterator[Resources]:
    """Open what a runtime opens, without building the HNSW indexes that a space lacks."""
    settings = Settings()
    async with AsyncExitStack() as closing:
        database = await Database(_secret(settings.database_url)).open()
        closing.push_async_callback(database.aclose)
        broker = JetStreamBroker(_secret(settings.nats_url), stream=settings.stream)
        closing.push_async_callback(broker.shutdown)
        if queue:
            await broker.startup()
        clients, mirrors = ProviderClients(None), Mirrors(settings, database)
        closing.push_async_callback(clients.aclose)
        closing.push_async_callback(mirrors.aclose)
        yield Resources(settings, database, broker, NatsDoorbell(broker), clients, mirrors)


def _secret(given: SecretStr | None) -> str:
    return given.get_secret_value() if given is not None else ""


def _kilobytes(field: str) -> int:
    """Of this process: `VmRSS` is what it has in memory, `VmHWM` the most it ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _run(work: Any) -> None:
    log.configure("ERROR")
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(work)))


if __name__ == "__main__":
    command()
