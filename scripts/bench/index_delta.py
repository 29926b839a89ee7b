"""A tenth of a table changed: texts sent and seconds against a run over everything, and against a table ten times as large."""

from evervec.pipeline import index, origins
from evervec.pipeline.resources import Resources
from evervec.sources.sql.loading import parse
from evervec.store.runs import Run
from scripts.bench import texts
from scripts.bench.report import Line, at_least, at_most
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


async def run(bench: Bench) -> list[Line]:
    """Full run and delta of 10,000 records, then the same delta of 100,000."""
    count = bench.rows(RECORDS)
    async with bench.resources("index_delta") as resources:
        full, small = await _measured(resources, "small", count, changed=count // SHARE)
        _, large = await _measured(resources, "large", count * 10, changed=count // SHARE)
    sent = max(one.counts.texts_sent for one in small)
    seconds = [min(one.seconds.total for one in some) for some in (small, large)]
    return [
        Line(
            f"texts sent, 10 % of {count:,} records",
            sent,
            full.counts.texts_sent,
            "texts",
            sent / full.counts.texts_sent,
            at_most(0.105),
        ),
        Line(
            "full run against delta",
            full.seconds.total,
            seconds[0],
            "s",
            full.seconds.total / seconds[0],
            at_least(9),
            f"full: {_stages(full)}; delta: {_stages(small[0])}",
        ),
        Line(
            f"the same delta in {count * 10:,} records against {count:,}",
            seconds[1],
            seconds[0],
            "s",
            seconds[1] / seconds[0],
            at_most(1.25),
            f"delta: {_stages(large[0])}",
        ),
    ]


async def _measured(resources: Resources, name: str, count: int, *, changed: int) -> tuple[Run, list[Run]]:
    """The first run over everything, and some deltas, each of other records."""
    await _fill(resources, name, count)
    description = parse(DESCRIPTION.format(name=name), name, {})
    record = await origins.keep_sql(resources, description)
    dataset = await index.dataset(resources, f"bench/{name}")
    full = await index.index_dataset(resources, dataset.id, full_rebuild=True)
    async with resources.database.autocommit() as connection:
        await connection.execute("VACUUM ANALYZE documents, chunks, embeddings")
    deltas = []
    for part in range(ROUNDS):
        ids = await _edit(resources, name, part, changed)
        deltas.append(await index.index_dataset(resources, dataset.id, {name: ids}))
    assert record.name == name
    return full, deltas


async def _fill(resources: Resources, name: str, count: int) -> None:
    async with resources.database.transaction() as tx:
        await tx.execute(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, title text, body text, updated_at timestamptz DEFAULT now())"
        )
        await tx.execute(f"CREATE INDEX ON {name} (updated_at)")
        rows = enumerate(texts.messages(count, seed=len(name)))
        await tx.copy(name, ("id", "title", "body"), ((number, f"Record {number}", text) for number, text in rows))


async def _edit(resources: Resources, name: str, part: int, changed: int) -> list[str | int]:
    """Change every record of a part of the table; answers their ids."""
    async with resources.database.transaction() as tx:
        rows = await tx.fetch(
            f"UPDATE {name} SET body = body || ' ' || $1, updated_at = now() WHERE id >= $2 AND id < $3 RETURNING id",
            f"edited in part {part}",
            part * changed,
            (part + 1) * changed,
        )
    return [row["id"] for row in rows]


def _stages(run: Run) -> str:
    seconds = run.seconds
    return (
        f"list {seconds.list:.2f}, read {seconds.read:.2f}, chunk {seconds.chunk:.2f}, write {seconds.write:.2f}, "
        f"embed {seconds.embed:.2f} s"
    )
