"""The tour: five tables are attached while a writer is at work, followed, compared, and detached without a trace."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

import asyncpg

from evervec.pipeline.attached.attach import AttachOptions, attach
from evervec.pipeline.attached.detach import detach
from evervec.pipeline.attached.report import attachments
from evervec.pipeline.resources import Resources
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.sources.attached.description import describe
from evervec.stack import binaries
from evervec.worker.main import work
from scripts.touring.comparing import differences, embedded_since
from scripts.touring.tables import TABLES
from scripts.touring.writing import Writer

PATIENCE = 300.0
LOOK_SECONDS = 0.1
SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """The size of a tour: rows in all, rows written a second, seconds of writing while attaching, and again afterwards."""

    rows: int = 20_000
    rate: float = 200
    seconds: float = 10
    seed: int = 1
    said: Mapping[str, str] = field(default_factory=dict)
    """What else each attachment says: its `capture`, or the `url` of the tables' database."""


@dataclass
class Outcome:
    """What a tour found: `failures` is empty when everything held."""

    failures: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


@dataclass
class Looking:
    """Connections of the tour itself: to our database, and to that of the tables, which may be the same.

    Either may have been restarted: a connection that is lost is made anew.
    """

    url: str
    theirs: str
    _open: dict[str, asyncpg.Connection] = field(default_factory=dict)

    async def ours(self) -> asyncpg.Connection:
        """Return the connection to our database."""
        return await self._connected(self.url)

    async def tables(self) -> asyncpg.Connection:
        """Return the connection to the tables' database, which nobody else uses."""
        return await self._connected(self.theirs)

    async def aclose(self) -> None:
        """Close both."""
        for one in self._open.values():
            await one.close()

    async def _connected(self, url: str) -> asyncpg.Connection:
        if url not in self._open or self._open[url].is_closed():
            self._open[url] = await asyncpg.connect(url)
        return self._open[url]


async def nothing() -> None:
    """Restart nothing."""


async def tour(
    url: str,
    settings: Settings,
    plan: Plan,
    say: Callable[[str], None],
    restart: Callable[[], Awaitable[None]] = nothing,
) -> Outcome:
    """Tour a migrated database, with a worker in this process; the tables are there, or where the plan's `url` leads.

    `restart` is called when all rows are taken in, and may restart the server of each.
    """
    outcome, finish = Outcome(), asyncio.Event()
    looking = Looking(url, plan.said.get("url", url))
    try:
        writer = Writer(await asyncpg.connect(looking.theirs), rows=plan.rows, seed=plan.seed)
        await writer.fill()
        before = await asyncio.to_thread(schema_of, looking.theirs)
        async with open_runtime(settings, worker=True) as runtime:
            worker = asyncio.create_task(work(runtime, finish))
            try:
                await _attached(runtime.resources, writer, looking, plan, outcome, say)
                await restart()
                await writer.connected(looking.theirs)
                await _followed(runtime.resources, writer, looking, plan, outcome, say)
                await _detached(runtime.resources, writer, looking, plan, outcome)
            finally:
                finish.set()
                await worker
        if await asyncio.to_thread(schema_of, looking.theirs) != before:
            outcome.failures.append("pg_dump --schema-only is not what it was before")
    finally:
        await looking.aclose()
    await writer.aclose()
    outcome.facts["written"] = writer.written
    return outcome


async def _attached(
    resources: Resources,
    writer: Writer,
    looking: Looking,
    plan: Plan,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Attach every table while the writer writes; wait until all is taken in and embedded."""
    finish = asyncio.Event()
    writing = asyncio.create_task(writer.write(plan.rate, finish))
    started, slowest = monotonic(), 0.0
    for table in TABLES:
        where = {"dataset_column": table.dataset_column} if table.dataset_column else {"dataset": table.name}
        described = describe(table=table.relation, project="tour", text=table.text, **where, **plan.said)
        done = await attach(resources, described, AttachOptions())
        slowest = max(slowest, done.seconds)
    outcome.facts["attach_seconds"] = round(slowest, 3)
    await asyncio.sleep(max(0.0, started + plan.seconds - monotonic()))
    finish.set()
    await writing
    outcome.failures += await _settled(resources, looking)
    outcome.facts["taken_in_seconds"] = round(monotonic() - started, 1)
    say(f"attached in {slowest:.2f} s at most, taken in after {monotonic() - started:.1f} s")


async def _followed(
    resources: Resources,
    writer: Writer,
    looking: Looking,
    plan: Plan,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Write again; exactly the rows whose text is new have to be embedded."""
    moment = await (await looking.ours()).fetchval("SELECT clock_timestamp()")
    writer.new_texts.clear()
    finish = asyncio.Event()
    writing = asyncio.create_task(writer.write(plan.rate, finish))
    await asyncio.sleep(plan.seconds)
    finish.set()
    await writing
    outcome.failures += await _settled(resources, looking)
    embedded = await embedded_since(await looking.ours(), moment)
    for what, some in (
        ("was embedded without a change", embedded - writer.new_texts),
        ("changed and was not embedded", writer.new_texts - embedded),
    ):
        outcome.failures += [f"{name} {key} {what}" for name, key in sorted(some)[:SHOWN]]
    outcome.facts["embedded_again"] = len(embedded)
    say(f"{len(embedded):,} texts were new, {len(embedded):,} rows were embedded")


async def _detached(resources: Resources, writer: Writer, looking: Looking, plan: Plan, outcome: Outcome) -> None:
    """Detach every table while the writer writes."""
    finish = asyncio.Event()
    writing = asyncio.create_task(writer.write(plan.rate, finish))
    for table in TABLES:
        await detach(resources, table.relation)
    finish.set()
    await writing
    for what in ("documents", "chunks", "embeddings", "attached_changes", "attached_failures", "sources"):
        left = await (await looking.ours()).fetchval(f"SELECT count(*) FROM evervec.{what}")
        if left:
            outcome.failures.append(f"{left:,} rows of {what} are left after detaching")


async def _settled(resources: Resources, looking: Looking) -> list[str]:
    """Wait until nothing is left to take in or to embed; return what is different still.

    Without change records nobody knows what waits before it is found: then it is what is different that is waited for.
    """
    ends = monotonic() + PATIENCE
    while True:
        found = await attachments(resources)
        busy = [one for one in found if one.state != "following" or one.changes_waiting or one.pending]
        if not busy:
            wrong = await differences(resources, await looking.ours(), await looking.tables())
            if not wrong or all(one.capture == "triggers" for one in found) or monotonic() > ends:
                return wrong[:SHOWN]
        if monotonic() > ends:
            raise TimeoutError(f"not taken in after {PATIENCE:g} s: {busy}")
        await asyncio.sleep(LOOK_SECONDS)


def schema_of(url: str) -> str:
    """Return the foreign schema as pg_dump writes it, without the token that differs from dump to dump."""
    program = binaries.postgres().executable.parent / "pg_dump"
    done = subprocess.run(
        [program, "--schema-only", "--exclude-schema=evervec", url], capture_output=True, text=True, check=True
    )
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))
