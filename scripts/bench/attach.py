"""What an attached table costs its writers, beside triggers as others have them; how fast its rows are taken in and searchable."""

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import asyncpg

from evervec.pipeline.attached.attach import AttachOptions, attach
from evervec.pipeline.attached.follow import follow_table
from evervec.pipeline.attached.report import attachments
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import describe
from evervec.store import datasets
from evervec.worker.main import work
from scripts.bench import clock, mirror_rows, texts
from scripts.bench.report import Line, at_least, at_most, below, percentiles, rate
from scripts.bench.stack import Bench, copy_messages, dataset, empty

TEXT = "title || E'\\n\\n' || coalesce(body, '')"
COLUMNS = ("title", "body")
TABLE = """
CREATE TABLE public.{name} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL, body text, views int NOT NULL DEFAULT 0
)"""
CHILD = "CREATE TABLE public.{name}_child () INHERITS (public.{name})"
QUEUE = """
CREATE TABLE public.{name}_queue (id bigint NOT NULL, queued_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON public.{name}_queue (id);
CREATE FUNCTION public.{name}_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF {condition} THEN INSERT INTO public.{name}_queue (id) VALUES (NEW.id); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER queue AFTER INSERT OR UPDATE ON public.{name} FOR EACH ROW EXECUTE FUNCTION public.{name}_queue();
"""
CHANGED = "TG_OP = 'INSERT' OR to_jsonb(OLD) IS DISTINCT FROM to_jsonb(NEW)"
INSERT = "INSERT INTO public.{name} (title, body) VALUES ($1, $2)"
PATIENCE = 10.0
LOOK = 0.0003

ATTACHED = {"attached": "attached", "related": "attached, as a partition"}
"""The two forms of our own triggers: for statements, and for rows."""
OTHERS = {"jsonb": "compares as JSONB", "queue": "queues each row"}
"""Row triggers as others have them: to_jsonb(OLD) IS DISTINCT FROM to_jsonb(NEW) into a queue, and every row into one."""

Rows = Sequence[tuple[str, str]]
Work = Callable[[asyncpg.Connection, str], Awaitable[float]]


async def run(bench: Bench) -> list[Line]:
    """Measure the writers, then existing rows, then single rows from commit to search."""
    return [*await _writers(bench), *await _existing(bench), *await _searchable(bench)]


def _rows(count: int) -> Rows:
    """Return short rows: a title of a few words and a sentence or two."""
    written = texts.messages(min(count, 20_000))
    return [
        (f"{' '.join(text.split()[:4])} {number}", " ".join(text.split()[4:20]))
        for number, text in ((number, written[number % len(written)]) for number in range(count))
    ]


async def _writers(bench: Bench) -> list[Line]:
    single, copied, updated = bench.rows(1_000), bench.rows(100_000), bench.rows(50_000)
    async with bench.resources("attach_writers") as resources:
        connection = await asyncpg.connect(resources.database.url)
        try:
            for name in ("bare", *ATTACHED, *OTHERS):
                await _make(resources, connection, name)
            rows = _rows(copied)
            return [
                *await _compared(
                    connection, f"{single:,} INSERTs, each committed", partial(_inserts, rows[:single]), 1.5
                ),
                *await _compared(
                    connection,
                    f"{single:,} INSERTs in one transaction",
                    partial(_inserts_together, rows[:single]),
                    None,
                ),
                *await _compared(connection, f"COPY of {copied:,} rows", partial(_copies, rows), 2.0),
                *await _compared(
                    connection,
                    f"UPDATE of another column, {updated:,} rows",
                    partial(_updates, updated),
                    1.1,
                    before=partial(_copies, rows[:updated]),
                ),
            ]
        finally:
            await connection.close()


async def _make(resources: Resources, connection: asyncpg.Connection, name: str) -> None:
    """Make a table of one variant, empty."""
    await connection.execute(TABLE.format(name=name))
    if name == "related":
        await connection.execute(CHILD.format(name=name))
    if name in OTHERS:
        await connection.execute(QUEUE.format(name=name, condition=CHANGED if name == "jsonb" else "true"))
    if name in ATTACHED:
        described = describe(table=f"public.{name}", text=TEXT, project="bench", dataset=name)
        await attach(resources, described, AttachOptions())


async def _compared(
    connection: asyncpg.Connection, what: str, work: Work, bound: float | None, *, before: Work | None = None
) -> list[Line]:
    """Return a line for each variant against a table without any trigger, from the medians of rounds in turns."""
    names = ("bare", *ATTACHED, *OTHERS)
    if before is not None:
        for name in names:
            await _emptied(connection, name)
            await before(connection, name)

    async def timed(name: str) -> float:
        if before is None:
            await _emptied(connection, name)
        await connection.execute(f"VACUUM ANALYZE public.{name}")
        await connection.execute("CHECKPOINT")
        return await work(connection, name)

    taken = await clock.rounds(5, {name: partial(timed, name) for name in names})
    bare = statistics.median(taken["bare"]) * 1000
    lines = []
    for name, form in (ATTACHED | OTHERS).items():
        ours = statistics.median(taken[name]) * 1000
        promise = at_most(bound) if bound and name in ATTACHED else None
        lines.append(Line(f"{what}: {form}", ours, bare, "ms", ours / bare, promise))
    return lines


async def _emptied(connection: asyncpg.Connection, name: str) -> None:
    """Remove all rows, and all that the triggers recorded."""
    await connection.execute(f"TRUNCATE public.{name}")
    await connection.execute(f"TRUNCATE public.{name}_queue" if name in OTHERS else "TRUNCATE evervec.attached_changes")


async def _inserts(rows: Rows, connection: asyncpg.Connection, name: str) -> float:
    statement = await connection.prepare(INSERT.format(name=name))
    started = perf_counter()
    for row in rows:
        await statement.fetch(*row)
    return perf_counter() - started


async def _inserts_together(rows: Rows, connection: asyncpg.Connection, name: str) -> float:
    async with connection.transaction():
        return await _inserts(rows, connection, name)


async def _copies(rows: Rows, connection: asyncpg.Connection, name: str) -> float:
    return await clock.seconds(
        connection.copy_records_to_table(name, schema_name="public", columns=COLUMNS, records=rows)
    )


async def _updates(count: int, connection: asyncpg.Connection, name: str) -> float:
    seconds = await clock.seconds(connection.execute(f"UPDATE ONLY public.{name} SET views = views + 1"))
    if (held := await connection.fetchval(f"SELECT count(*) FROM ONLY public.{name}")) != count:
        raise RuntimeError(f"{name} has {held} rows, not {count}")
    return seconds


async def _existing(bench: Bench) -> list[Line]:
    """Attach a table that has its rows already, while a writer inserts; then take them in, without embedding them."""
    count = bench.rows(1_000_000)
    async with bench.resources("attach_rows") as resources:
        connection = await asyncpg.connect(resources.database.url)
        try:
            for name in ("bare", "articles"):
                await connection.execute(TABLE.format(name=name))
            rows = _rows(count)
            copied = statistics.median([await _copied(connection, rows) for _ in range(3)])
            into_messages = await _into_messages(resources, rows)
            await _copies(rows, connection, "articles")
            await connection.execute("VACUUM ANALYZE public.articles")
            waited, source_id = await _attached(resources)
            started = perf_counter()
            await follow_table(resources, source_id)
            seconds = perf_counter() - started
            [report] = await attachments(resources)
            if report.documents < count:
                raise RuntimeError(f"{report.documents:,} of {count:,} rows were taken in")
        finally:
            await connection.close()
    return [
        Line(f"attach of {count:,} rows: the longest wait of a writer, promised", waited, 1.0, "s", waited, below(1)),
        rate(
            f"taking {count:,} rows in, COPY into a plain table", count, [seconds], [copied], at_least(0.5), "one round"
        ),
        rate(f"taking {count:,} rows in, COPY into messages", count, [seconds], [into_messages], None, "one round"),
    ]


async def _copied(connection: asyncpg.Connection, rows: Rows) -> float:
    await connection.execute("TRUNCATE public.bare")
    await connection.execute("CHECKPOINT")
    return await _copies(rows, connection, "bare")


async def _into_messages(resources: Resources, rows: Rows) -> float:
    target = await dataset(resources)
    written = ["\n\n".join(row) for row in rows]
    taken = await clock.seconds(copy_messages(resources, target, written))
    await empty(resources)
    return taken


async def _attached(resources: Resources) -> tuple[float, Any]:
    """Attach while a writer inserts one row after the other; return its longest wait in seconds, and the attachment."""
    begun, finish = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(_write(resources.database.url, begun, finish))
    await begun.wait()
    described = describe(table="public.articles", text=TEXT, project="bench", dataset="articles")
    attached = await attach(resources, described, AttachOptions())
    finish.set()
    return await writing, attached.id


async def _write(url: str, begun: asyncio.Event, finish: asyncio.Event) -> float:
    connection, slowest = await asyncpg.connect(url), 0.0
    try:
        statement = await connection.prepare(INSERT.format(name="articles"))
        while not finish.is_set():
            slowest = max(slowest, await clock.seconds(statement.fetch("written", "while it is attached")))
            begun.set()
    finally:
        begun.set()
        await connection.close()
    return slowest


async def _searchable(bench: Bench) -> list[Line]:
    """Insert rows one after the other; the worker takes each in and embeds it, and its mirrors follow."""
    async with bench.runtime("attach_search", queue=True, worker=True) as runtime:
        resources, finish = runtime.resources, asyncio.Event()
        connection = await asyncpg.connect(resources.database.url)
        working = asyncio.create_task(work(runtime, finish))
        try:
            await connection.execute(TABLE.format(name="articles"))
            described = describe(table="public.articles", text=TEXT, project="bench", dataset="articles")
            await attach(resources, described, AttachOptions())
            async with resources.database.read() as tx:
                [target] = await datasets.find(tx, "articles", "bench")
            statement = await connection.prepare(INSERT.format(name="articles"))
            await statement.fetch("the first one", "opens the model")
            await mirror_rows.ready(resources.mirrors, target)
            await mirror_rows.until(lambda: _count(resources, target.id) == 1, PATIENCE, every=LOOK)
            taken = []
            for number, row in enumerate(_rows(bench.rows(400)), 2):
                await asyncio.sleep(random.uniform(0.01, 0.05))
                await statement.fetch(*row)
                committed = perf_counter()
                await mirror_rows.until(partial(_holds, resources, target.id, number), PATIENCE, every=LOOK)
                taken.append((perf_counter() - committed) * 1000)
        finally:
            finish.set()
            await working
            await connection.close()
    return percentiles("commit of an attached row, local embedder", taken, below, p50=100, p99=500)


def _holds(resources: Resources, dataset_id: Any, count: int) -> bool:
    return _count(resources, dataset_id) >= count


def _count(resources: Resources, dataset_id: Any) -> int:
    mirror = resources.mirrors.known(dataset_id)
    return 0 if mirror is None or mirror.index is None else len(mirror.index)
