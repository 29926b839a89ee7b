"""Index runs: one row each, from the request to the end, with all counts. A run is alive while its dataset is leased."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson

from evervec.domain.documents.document import ChangedIds, SkippedDocument
from evervec.store import leases
from evervec.store.database.session import ReadTx, Tx
from evervec.store.leases import IS_HELD

EXAMPLES_KEPT = 50
RUNS_KEPT = 200
"""How many finished runs of a dataset are kept."""


@dataclass
class RunCounts:
    """The counts of a run; `full_…` is what the dataset holds at the end, which a run that compares nothing would send."""

    documents_new: int = 0
    documents_changed: int = 0
    documents_unchanged: int = 0
    documents_moved: int = 0
    documents_deleted: int = 0
    documents_skipped: int = 0
    chunks_new: int = 0
    chunks_updated: int = 0
    chunks_skipped: int = 0
    chunks_deleted: int = 0
    texts_sent: int = 0
    embeddings_generated: int = 0
    embeddings_reused: int = 0
    requests: int = 0
    tokens: int = 0
    full_texts: int = 0
    full_tokens: int = 0

    def __add__(self, other: "RunCounts") -> "RunCounts":
        return RunCounts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class RunSeconds:
    """Seconds by stage. Stages overlap, so their sum may be more than `total`."""

    list: float = 0.0
    read: float = 0.0
    chunk: float = 0.0
    write: float = 0.0
    embed: float = 0.0
    total: float = 0.0


@dataclass
class RunRecord:
    """An index run of a dataset.

    `mode` is delta (the `changed` ids alone), compare (everything) or full (and what is gone is deleted). With `embeds` it
    embeds what it writes, else workers do; with `deferred` batch jobs do.
    """

    id: UUID
    dataset_id: UUID
    mode: str
    trigger: str
    state: str
    changed: dict[str, list[str | int]] | None
    scope: list[str] | None
    embeds: bool
    deferred: bool
    cursor: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cost_usd: float | None
    full_cost_usd: float | None
    error: str | None
    counts: RunCounts = field(default_factory=RunCounts)
    seconds: RunSeconds = field(default_factory=RunSeconds)
    skipped: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def unsaved(cls, dataset_id: UUID, *, mode: str, trigger: str, at: datetime) -> "RunRecord":
        """Return a run that is in no table: that of a dry run."""
        return cls(
            uuid4(), dataset_id, mode, trigger, "done", None, None, False, False, None, 1, at, at, at, None, None, None
        )

    def advance(self, cursor: str | None, counts: "RunCounts", skipped: Sequence[SkippedDocument]) -> None:
        """Add one finished batch: its counts, the cursor it reached, and what has no document, by reason.

        The first fifty of these are kept by name.
        """
        self.cursor = cursor
        self.counts += counts + RunCounts(documents_skipped=len(skipped))
        for one in skipped:
            reason = str(one.reason)  # a source may use an enum, whose members can not be keys in JSON
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
            if len(self.examples) < EXAMPLES_KEPT:
                self.examples.append({"uri": one.uri, "reason": reason, "detail": one.detail})

    def copy(self) -> "RunRecord":
        """Return a copy whose numbers change independently."""
        return replace(self, counts=replace(self.counts), skipped=dict(self.skipped), examples=list(self.examples))


RUN_COUNTS = tuple(f.name for f in fields(RunCounts))
SECONDS = tuple(f.name for f in fields(RunSeconds))
RUN_COLUMNS = tuple(f.name for f in fields(RunRecord) if f.name not in ("counts", "seconds", "skipped", "examples"))
NUMBERS = (*RUN_COUNTS, *(f"seconds_{name}" for name in SECONDS))
SELECT_RUNS = f"SELECT {', '.join((*RUN_COLUMNS, *NUMBERS))}, skipped, examples FROM index_runs "


def _run(row: Any) -> RunRecord:
    own = {name: row[name] for name in RUN_COLUMNS}
    own["changed"] = None if row["changed"] is None else orjson.loads(row["changed"])
    return RunRecord(
        **own,
        counts=RunCounts(*(row[name] for name in RUN_COUNTS)),
        seconds=RunSeconds(*(row[f"seconds_{name}"] for name in SECONDS)),
        skipped=orjson.loads(row["skipped"]),
        examples=orjson.loads(row["examples"]),
    )


async def by_id(tx: ReadTx, run_id: UUID) -> RunRecord | None:
    """Return a run, or None if it was deleted with its dataset."""
    row = await tx.fetchrow(SELECT_RUNS + "WHERE id = $1", run_id)
    return None if row is None else _run(row)


async def active(tx: ReadTx, dataset_id: UUID) -> RunRecord | None:
    """Return the running run, else the queued one, else None."""
    row = await tx.fetchrow(
        SELECT_RUNS + "WHERE dataset_id = $1 AND state IN ('queued', 'running') ORDER BY state DESC LIMIT 1", dataset_id
    )
    return None if row is None else _run(row)


async def recent(tx: ReadTx, dataset_id: UUID, *, limit: int) -> list[RunRecord]:
    """Return the newest runs, newest first."""
    rows = await tx.fetch(SELECT_RUNS + "WHERE dataset_id = $1 ORDER BY created_at DESC LIMIT $2", dataset_id, limit)
    return [_run(row) for row in rows]


async def last_full(tx: ReadTx, dataset_id: UUID) -> RunRecord | None:
    """Return the newest finished run that started from an empty dataset: the cost of a run that compares nothing."""
    row = await tx.fetchrow(
        SELECT_RUNS
        + "WHERE dataset_id = $1 AND state = 'done' AND mode <> 'delta' AND chunks_skipped = 0 AND chunks_new = full_texts "
        "ORDER BY created_at DESC LIMIT 1",
        dataset_id,
    )
    return None if row is None else _run(row)


MERGED = """
SELECT coalesce(jsonb_object_agg(name, ids), '{}') FROM (
    SELECT name, jsonb_agg(DISTINCT id) AS ids
    FROM (SELECT (jsonb_each(c)).key AS name, jsonb_array_elements((jsonb_each(c)).value) AS id
          FROM unnest(ARRAY[$1::jsonb, $2::jsonb]) c) every
    GROUP BY name) merged
"""


async def add(
    tx: Tx,
    dataset_id: UUID,
    mode: str,
    trigger: str,
    changed: ChangedIds | None = None,
    scope: Sequence[str] | None = None,
    embeds: bool = True,
    state: str = "queued",
    *,
    deferred: bool = False,
) -> UUID:
    """Insert a run and return its id. A dataset has one run in a state: a second one raises a unique violation."""
    run_id: UUID = await tx.fetchval(
        "INSERT INTO index_runs (dataset_id, mode, trigger, changed, scope, embeds, state, deferred) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
        dataset_id,
        mode,
        trigger,
        None if changed is None else orjson.dumps({name: list(ids) for name, ids in changed.items()}).decode(),
        None if scope is None else list(scope),
        embeds and not deferred,
        state,
        deferred,
    )
    return run_id


async def lock_queue(tx: Tx, dataset_id: UUID) -> None:
    """Let requests for runs of a dataset be made one after the other, until the transaction ends."""
    await tx.execute("SELECT FROM datasets WHERE id = $1 FOR NO KEY UPDATE", dataset_id)


async def enqueue(
    tx: Tx,
    dataset_id: UUID,
    mode: str,
    trigger: str,
    changed: ChangedIds | None = None,
    embeds: bool = True,
    *,
    deferred: bool = False,
) -> UUID:
    """Queue a run and return its id. A run that is already queued takes the ids too, or becomes the wider of the two.

    A run that anybody requested without `deferred` is not deferred.
    """
    await lock_queue(tx, dataset_id)
    row = await tx.fetchrow(SELECT_RUNS + "WHERE dataset_id = $1 AND state = 'queued' FOR UPDATE", dataset_id)
    if row is None:
        return await add(tx, dataset_id, mode, trigger, changed, embeds=embeds, deferred=deferred)
    waiting = _run(row)
    wider = max(waiting.mode, mode, key=("delta", "compare", "full").index)
    merged = None
    if wider == "delta":
        merged = await tx.fetchval(
            MERGED,
            orjson.dumps(waiting.changed).decode(),
            orjson.dumps({n: list(i) for n, i in (changed or {}).items()}).decode(),
        )
    await tx.execute(
        "UPDATE index_runs SET mode = $2, changed = $3, scope = NULL, cursor = NULL, "
        "embeds = embeds OR $4, deferred = deferred AND $5, not_before = now() WHERE id = $1",
        waiting.id,
        wider,
        merged,
        embeds and not deferred,
        deferred,
    )
    return waiting.id


async def start_next(tx: Tx, dataset_id: UUID) -> RunRecord | None:
    """Mark the next run of a dataset as running and return it; only for the holder of the dataset's lease.

    A run whose process died comes first, then the queued one.
    """
    row = await tx.fetchrow(
        "UPDATE index_runs SET state = 'running', attempts = attempts + 1, started_at = coalesce(started_at, now()) "
        "WHERE id = (SELECT id FROM index_runs WHERE dataset_id = $1 AND (state = 'running' OR (state = 'queued' "
        "AND not_before <= now())) ORDER BY state DESC LIMIT 1) RETURNING id",
        dataset_id,
    )
    return None if row is None else await by_id(tx, row["id"])


SAVE = f"""
UPDATE index_runs SET cursor = $2, {", ".join(f"{name} = ${n}" for n, name in enumerate(NUMBERS, 5))},
    skipped = $3, examples = $4
WHERE id = $1
"""


async def save(tx: Tx, run: RunRecord) -> None:
    """Save the counts and the cursor of a run, in the transaction that did the work."""
    await tx.execute(
        SAVE,
        run.id,
        run.cursor,
        orjson.dumps(run.skipped).decode(),
        orjson.dumps(run.examples).decode(),
        *asdict(run.counts).values(),
        *asdict(run.seconds).values(),
    )


async def finish(tx: Tx, run: RunRecord) -> None:
    """Save the end of a run: its state, error and cost. Only the newest finished runs are kept."""
    await save(tx, run)
    run.finished_at = await tx.fetchval(
        "UPDATE index_runs SET state = $2, error = $3, finished_at = now(), cost_usd = $4, full_cost_usd = $5 "
        "WHERE id = $1 RETURNING finished_at",
        run.id,
        run.state,
        run.error,
        run.cost_usd,
        run.full_cost_usd,
    )
    await tx.execute(
        "DELETE FROM index_runs WHERE dataset_id = $1 AND finished_at IS NOT NULL AND created_at < (SELECT created_at "
        "FROM index_runs WHERE dataset_id = $1 ORDER BY created_at DESC OFFSET $2 LIMIT 1)",
        run.dataset_id,
        RUNS_KEPT,
    )


async def postpone(tx: Tx, run: RunRecord, *, seconds: float, error: str) -> None:
    """Queue a run again for some seconds later, because what it needs is away.

    If another run is already queued, that one takes its ids, and this one fails.
    """
    await lock_queue(tx, run.dataset_id)
    if await tx.fetchval(
        "SELECT EXISTS (SELECT FROM index_runs WHERE dataset_id = $1 AND state = 'queued')", run.dataset_id
    ):
        await enqueue(tx, run.dataset_id, run.mode, run.trigger, run.changed, run.embeds)
        run.state, run.error = "failed", f"{error} The run that waits does it."
        await finish(tx, run)
        return
    run.state, run.error = "queued", error
    await save(tx, run)
    await tx.execute(
        "UPDATE index_runs SET state = 'queued', error = $2, not_before = now() + $3 WHERE id = $1",
        run.id,
        error,
        timedelta(seconds=seconds),
    )


DATASETS_DUE = """
SELECT r.dataset_id FROM index_runs r
JOIN datasets d ON d.id = r.dataset_id JOIN projects p ON p.id = d.project_id
LEFT JOIN LATERAL (SELECT full_texts FROM index_runs o WHERE o.dataset_id = r.dataset_id AND o.state = 'done'
                   ORDER BY created_at DESC LIMIT 1) last ON true
WHERE r.state IN ('queued', 'running') AND r.not_before <= now() AND d.deleted_at IS NULL AND p.deleted_at IS NULL
GROUP BY r.dataset_id ORDER BY bool_and(r.mode = 'delta') DESC, max(coalesce(last.full_texts, 0)), min(r.created_at)
"""


async def datasets_due(tx: ReadTx) -> list[UUID]:
    """Return the live datasets with a run that is due, or marked running; only its lease tells if it really runs.

    Deltas come before runs that go through everything, small datasets before large ones.
    """
    return [row["dataset_id"] for row in await tx.fetch(DATASETS_DUE)]


@dataclass(frozen=True)
class DatasetRuns:
    """The runs of a dataset: the running one, the queued one, the last finished one."""

    running: RunRecord | None
    queued: RunRecord | None
    last: RunRecord | None


async def of_dataset(tx: ReadTx, dataset_id: UUID) -> DatasetRuns:
    """Return the runs that are not finished, and the newest finished one."""
    rows = await tx.fetch(
        SELECT_RUNS
        + "WHERE dataset_id = $1 AND (finished_at IS NULL OR id = (SELECT id FROM index_runs WHERE dataset_id = $1 "
        "AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1))",
        dataset_id,
    )
    found = {row["state"] if row["finished_at"] is None else "last": _run(row) for row in rows}
    return DatasetRuns(found.get("running"), found.get("queued"), found.get("last"))


EMBEDDING_DATASETS = f"""
SELECT dataset_id FROM index_runs r WHERE state = 'running' AND embeds AND {IS_HELD.format(name="'index:' || r.dataset_id")}
"""


def lease_name(dataset_id: UUID) -> str:
    """Return the name of the lease that a process has while it does the runs of a dataset."""
    return f"index:{dataset_id}"


async def is_indexing(tx: ReadTx, dataset_id: UUID) -> bool:
    """Return whether a process is indexing this dataset now: it has the lease. One that died has it for a while."""
    return await leases.is_held(tx, lease_name(dataset_id))


async def embedding_datasets(tx: ReadTx) -> set[UUID]:
    """Return the datasets whose chunks are embedded by a living run itself, which counts what it sends."""
    return {row["dataset_id"] for row in await tx.fetch(EMBEDDING_DATASETS)}


WITHOUT_IDS = SELECT_RUNS.replace(" changed,", " NULL AS changed,")


async def finished(tx: ReadTx, dataset_id: UUID) -> list[RunRecord]:
    """Return every finished run, newest first, without the ids that it was given: there may be very many."""
    rows = await tx.fetch(
        WITHOUT_IDS + "WHERE dataset_id = $1 AND finished_at IS NOT NULL ORDER BY created_at DESC", dataset_id
    )
    return [_run(row) for row in rows]
