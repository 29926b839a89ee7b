"""A tenth of a table changed: texts sent and seconds against a run over everything, and against a table ten times as large."""

from dataclasses import dataclass

from evervec.pipeline.indexing import requests, source_registry
from evervec.pipeline.resources import Resources
from evervec.sources.sql.loading import parse
from evervec.store.runs import RunRecord
from scripts.bench import texts
from scripts.bench.report import Line, Promise, at_least, at_most
from scripts.bench.stack import Bench

RECORDS = 10_000
SHARE = 10
ROUNDS = 3

DESCRIPTION = """
name: {name}
project: bench
dataset: {name}
tables:
  {name}:
    key: id
    updated_at: updated_at
    template: "{{title}}: {{body}}"
"""


@dataclass(frozen=True)
class Runs:
    """Of one table: the first run, some deltas, and a full run in which every record has changed once more."""

    first: RunRecord
    deltas: list[RunRecord]
    again: RunRecord | None

    @property
    def delta(self) -> RunRecord:
        """The fastest."""
        return min(self.deltas, key=lambda run: run.seconds.total)


async def run(bench: Bench) -> list[Line]:
    """Full runs and deltas of 10,000 records, then the same delta of 100,000."""
    count = bench.rows(RECORDS)
    async with bench.resources("index_delta") as resources:
        small = await _measured(resources, "small", count, changed=count // SHARE, again=True)
        large = await _measured(resources, "large", count * 10, changed=count // SHARE, again=False)
    assert small.again is not None
    sent = max(one.counts.texts_sent for one in small.deltas)
    every = small.first.counts.texts_sent
    return [
        Line(f"texts sent, 10 % of {count:,} records", sent, every, "texts", sent / every, at_most(0.105)),
        _compared("everything again against a delta", small.again, small.delta, at_least(9)),
        _compared("first run, into empty indexes, against a delta", small.first, small.delta, at_least(9)),
        _compared(f"a delta of {count * 10:,} records against {count:,}", large.delta, small.delta, at_most(1.25)),
    ]


def _compared(name: str, one: RunRecord, other: RunRecord, promise: Promise) -> Line:
    seconds = one.seconds.total, other.seconds.total
    return Line(name, *seconds, "s", seconds[0] / seconds[1], promise, f"{_stages(one)}; against: {_stages(other)}")


async def _measured(resources: Resources, name: str, count: int, *, changed: int, again: bool) -> Runs:
    """Run once over everything, then over some deltas, each of other records, then over everything again."""
    await _fill(resources, name, count)
    description = parse(DESCRIPTION.format(name=name), name, {})
    record = await source_registry.register_sql(resources, description)
    dataset = await requests.dataset(resources.database, f"bench/{name}")
    first = await requests.index_dataset(resources, dataset.id, full_rebuild=True)
    async with resources.database.autocommit() as connection:
        await connection.execute("VACUUM ANALYZE documents, chunks, embeddings")
    deltas = []
    for part in range(ROUNDS):
        ids = await _edit(resources, name, part, changed)
        deltas.append(await requests.index_dataset(resources, dataset.id, {name: ids}))
    assert record.name == name
    if not again:
        return Runs(first, deltas, None)
    await _edit(resources, name, 0, count)
    return Runs(first, deltas, await requests.index_dataset(resources, dataset.id, full_rebuild=True))


async def _fill(resources: Resources, name: str, count: int) -> None:
    async with resources.database.transaction() as tx:
        await tx.execute(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, title text, body text, updated_at timestamptz DEFAULT now())"
        )
        await tx.execute(f"CREATE INDEX ON {name} (updated_at)")
        rows = enumerate(texts.messages(count, seed=len(name)))
        await tx.copy(name, ("id", "title", "body"), ((number, f"Record {number}", text) for number, text in rows))


async def _edit(resources: Resources, name: str, part: int, changed: int) -> list[str | int]:
    """Change every record of a part of the table; return their ids."""
    async with resources.database.transaction() as tx:
        rows = await tx.fetch(
            f"UPDATE {name} SET body = body || ' ' || $1, updated_at = now() WHERE id >= $2 AND id < $3 RETURNING id",
            f"edited in part {part}",
            part * changed,
            (part + 1) * changed,
        )
    return [row["id"] for row in rows]


def _stages(run: RunRecord) -> str:
    seconds = run.seconds
    return (
        f"list {seconds.list:.2f}, read {seconds.read:.2f}, chunk {seconds.chunk:.2f}, write {seconds.write:.2f}, "
        f"embed {seconds.embed:.2f} s"
    )
