"""A batch job of 50,000 rows out and back on Gemini's wire and on OpenAI's: seconds, what of them can not be saved, and memory."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evervec.pipeline.resources import Resources
from evervec.store.batch import batch_queue
from scripts.bench import deferred_stage
from scripts.bench.deferred_stage import Stage
from scripts.bench.report import Line, Promise, at_least, at_most, below
from scripts.bench.stack import Bench, copy_messages, dataset

ROWS = 50_000
DIMENSIONS = 256
HOURS = 50.0

MOST_MEGABYTES = 300.0
FEWEST, MOST = 500, 2000
"""Rows that one transaction is to write."""

STEPS = ("flush", "read", "sync")
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# the vectors of one transaction carry its id
PIECES = "SELECT count(*) AS rows FROM embeddings WHERE embedding IS NOT NULL GROUP BY changed_xid ORDER BY 1"


async def run(bench: Bench) -> list[Line]:
    """50,000 rows of two words each: Gemini's first tier lets no more than half a million tokens wait."""
    count = bench.rows(ROWS)
    lines: list[Line] = []
    async with deferred_stage.open_stage(DIMENSIONS) as stage:
        for name in ("Gemini", "OpenAI"):
            lines += _lines(name, count, await _there_and_back(bench, stage, name.lower(), count))
    return lines


async def _there_and_back(bench: Bench, stage: Stage, type_: str, count: int) -> dict[str, Any]:
    """Run each step in a process of its own; return what they printed. Raises `RuntimeError` when a row is missing."""
    async with bench.resources(f"deferred_{type_}") as resources:
        texts = await _waiting(resources, stage, type_, count)
        reported = {"send": await _sent(resources, stage, texts)}
        reported |= {step: await stage.run_child(resources, step) for step in STEPS}
        async with resources.database.read() as tx:
            pieces = [row["rows"] for row in await tx.fetch(PIECES)]
    seen = (reported["flush"]["rows"], reported["read"]["lines"], reported["sync"]["ready"], sum(pieces))
    if set(seen) != {count}:
        raise RuntimeError(f"{count} rows; sent, read, taken in, written: {seen}. {reported['sync']['problems']}")
    return reported | {"pieces": pieces}


async def _waiting(resources: Resources, stage: Stage, type_: str, count: int) -> list[str]:
    """Mark rows for batch jobs in an empty database; return their texts."""
    await stage.add(resources, type_)
    target, texts = await dataset(resources), [_words(number) for number in range(count)]
    await copy_messages(resources, target, texts)
    async with resources.database.transaction() as tx:
        await batch_queue.mark_datasets(tx, [target.id], hours=HOURS)
    async with resources.database.autocommit() as connection:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    return texts


def _words(number: int) -> str:
    """Two words of six letters, other ones for each number."""
    word = "".join(LETTERS[number // len(LETTERS) ** place % len(LETTERS)] for place in range(6))
    return f"{word} {word[::-1]}"


async def _sent(resources: Resources, stage: Stage, texts: list[str]) -> dict[str, Any]:
    with TemporaryDirectory(prefix="evervec-bench-") as folder:
        file = Path(folder) / "texts"
        file.write_text("\n".join(texts))
        return await stage.run_child(resources, "send", str(file))


def _lines(name: str, count: int, reported: dict[str, Any]) -> list[Line]:
    flush, read, sync, pieces = reported["flush"], reported["read"], reported["sync"], reported["pieces"]
    rows, wide = f"{name}, {count:,} rows", f"x {DIMENSIONS}"
    return [
        _over(f"{rows}: flush, the same lines made and sent and nothing else", flush, reported["send"]["seconds"]),
        _over(f"{rows} {wide}: sync, its statements that write vectors", sync, sync["write"]),
        _over(f"{rows} {wide}: sync, the same results read and thrown away", sync, read["seconds"]),
        _over(f"{rows} {wide}: sync, both of these", sync, sync["write"] + read["seconds"]),
        _peak(f"{name}: peak memory of flush, promised", flush),
        _peak(f"{name}: peak memory of sync, promised", sync),
        _piece(f"{name}: fewest rows that a transaction of sync wrote, promised", pieces[0], FEWEST, at_least(1)),
        _piece(f"{name}: most rows that a transaction of sync wrote, promised", pieces[-1], MOST, at_most(1)),
    ]


def _over(name: str, ours: dict[str, Any], against: float) -> Line:
    return Line(name, ours["seconds"], against, "s", ours["seconds"] / against)


def _peak(name: str, step: dict[str, Any]) -> Line:
    peak, before = step["peak"], step["before"]
    note = f"resident, of a process that does only this; {before:,.0f} MB of it before it begins, with the provider's library"
    return Line(name, peak, MOST_MEGABYTES, "MB", peak / MOST_MEGABYTES, below(1), note)


def _piece(name: str, ours: int, bound: int, promise: Promise) -> Line:
    return Line(name, ours, bound, "rows", ours / bound, promise)
