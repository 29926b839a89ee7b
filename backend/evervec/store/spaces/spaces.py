"""The spaces of datasets: which one is searched, which others are written to, how much of each is filled; flipped and dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from evervec.store.database.connections import ROW_LOCK_SECONDS
from evervec.store.database.session import ReadTx, Tx
from evervec.store.schema.embeddables import CHUNK, EMBEDDABLES

NEXT, PREVIOUS = "next", "previous"
SPACE_LOCK_SECONDS = 1


@dataclass(frozen=True)
class OtherSpace:
    """A space that a dataset has beside the one that is searched.

    `state` is `next`, being filled to be activated, or `previous`, kept for a rollback. `taken_in` says that every row has
    a record in it, `indexed` that its vectors can be searched by HNSW. An `automatic` one is activated by itself. With
    `batch_hours` the rows that are there wait so long for batch jobs; they are `marked` once all of them are known.
    """

    dataset_id: UUID
    space_id: int
    provider_id: UUID | None
    state: str
    automatic: bool
    created_at: datetime
    taken_in: bool
    indexed: bool
    batch_hours: float | None
    marked: bool


SELECT_OTHERS = """
SELECT o.dataset_id, o.space_id, o.provider_id, o.state, o.automatic, o.created_at, o.taken_in_at IS NOT NULL AS taken_in,
       o.indexed_at IS NOT NULL AS indexed, o.batch_hours, o.marked_at IS NOT NULL AS marked
FROM dataset_spaces o JOIN datasets d ON d.id = o.dataset_id JOIN projects p ON p.id = d.project_id
WHERE d.deleted_at IS NULL AND p.deleted_at IS NULL AND o.state <> 'dropped'
"""


async def others(tx: ReadTx, dataset_ids: Sequence[UUID] | None = None) -> list[OtherSpace]:
    """Return the spaces that some live datasets, or all, have beside the one that is searched, oldest first."""
    rows = await tx.fetch(
        SELECT_OTHERS
        + " AND ($1::uuid[] IS NULL OR o.dataset_id = ANY($1)) ORDER BY o.created_at, o.dataset_id, o.state",
        None if dataset_ids is None else list(dataset_ids),
    )
    return [OtherSpace(*row) for row in rows]


async def shared(tx: ReadTx, space_id: int) -> bool:
    """Return whether a dataset that is searched in another space has vectors in this one, too."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM dataset_spaces WHERE space_id = $1)", space_id))


async def searched(tx: ReadTx) -> list[int]:
    """Return the spaces that datasets are searched in, and the default unless it is only built yet."""
    rows = await tx.fetch(
        "SELECT id FROM embedding_spaces s WHERE EXISTS (SELECT FROM datasets d WHERE d.space_id = s.id) "
        "OR (state = 'active' AND NOT EXISTS (SELECT FROM dataset_spaces o WHERE o.space_id = s.id AND o.indexed_at IS NULL)) "
        "ORDER BY id"
    )
    return [row["id"] for row in rows]


async def in_use(tx: ReadTx, space_id: int) -> bool:
    """Return whether any dataset is searched in a space, or written to it."""
    found: bool = await tx.fetchval(
        "SELECT EXISTS (SELECT FROM datasets WHERE space_id = $1) "
        "OR EXISTS (SELECT FROM dataset_spaces WHERE space_id = $1 AND state <> 'dropped')",
        space_id,
    )
    return found


async def lock(tx: Tx, dataset_ids: Sequence[UUID]) -> None:
    """Let one transaction at a time change the spaces of some datasets; writers of rows do not wait for it."""
    await tx.execute("SELECT FROM datasets WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", list(dataset_ids))


async def lock_default(tx: Tx) -> None:
    """Let one transaction at a time change the default."""
    await tx.execute("LOCK TABLE embedding_spaces IN SHARE ROW EXCLUSIVE MODE")


async def default(tx: ReadTx) -> int:
    """Return the space that new datasets get; 0 if there is none yet."""
    found: int = await tx.fetchval("SELECT coalesce(max(id), 0) FROM embedding_spaces WHERE state = 'active'")
    return found


# in the order of its index, or the planner reads the table until it meets a row of these datasets
HAS_VECTORS = """
SELECT EXISTS (SELECT FROM unnest($1::uuid[]) AS wanted (id), LATERAL (
    SELECT FROM embeddings e WHERE e.dataset_id = wanted.id AND e.space_id = $2 AND e.embedding IS NOT NULL
    ORDER BY e.changed_xid, e.vector_id LIMIT 1) found)
"""


async def has_vectors(tx: ReadTx, dataset_ids: Sequence[UUID], space_id: int) -> bool:
    """Return whether a row of some datasets has a vector in a space."""
    found: bool = await tx.fetchval(HAS_VECTORS, list(dataset_ids), space_id)
    return found


async def move(tx: Tx, dataset_ids: Sequence[UUID], former: int, space_id: int) -> None:
    """Search datasets in another space at once, which have no vector yet; their documents are chunked again. Needs `lock`."""
    ids = list(dataset_ids)
    await tx.execute("SELECT evervec_add_space($1)", space_id)
    # a writer that has seen the former space ends before, and the next one sees this
    await tx.execute("LOCK TABLE embeddings IN SHARE ROW EXCLUSIVE MODE")
    await tx.execute(
        "UPDATE dataset_spaces SET state = 'dropped', seen_xid = NULL WHERE dataset_id = ANY($1) AND space_id <> $2",
        ids,
        space_id,
    )
    await tx.execute("DELETE FROM dataset_spaces WHERE dataset_id = ANY($1) AND space_id = $2", ids, space_id)
    await tx.execute("UPDATE datasets SET space_id = $2, provider_id = NULL WHERE id = ANY($1)", ids, space_id)
    await tx.execute("DELETE FROM embeddings WHERE dataset_id = ANY($1) AND space_id = $2", ids, space_id)
    await tx.execute(
        "UPDATE embeddings SET space_id = $3, failed_hash = CASE WHEN content_hash IS NULL THEN failed_hash END "
        "WHERE dataset_id = ANY($1) AND space_id = $2",
        ids,
        former,
        space_id,
    )
    await tx.execute("DELETE FROM chunks WHERE dataset_id = ANY($1) AND space_id = $2", ids, space_id)
    if former:  # chunks of 0 are of every space
        await tx.execute(
            "UPDATE chunks SET space_id = $3 WHERE dataset_id = ANY($1) AND space_id = $2", ids, former, space_id
        )
    for dataset_id in ids:
        await documents_due(tx, dataset_id, space_id)


async def make_default(tx: Tx, space_id: int) -> None:
    """Make a space the one that new datasets get. Needs `lock_default`."""
    await tx.execute("UPDATE embedding_spaces SET state = 'ready' WHERE state = 'active' AND id <> $1", space_id)
    await tx.execute(
        "UPDATE embedding_spaces SET state = 'active', activated_at = now() WHERE id = $1 AND state <> 'active'",
        space_id,
    )


async def use_provider(tx: Tx, dataset_ids: Sequence[UUID], provider_id: UUID | None) -> None:
    """Let a provider embed for some datasets, None: whichever of the space was used last."""
    await tx.execute("UPDATE datasets SET provider_id = $2 WHERE id = ANY($1)", list(dataset_ids), provider_id)


# a record for every row that has one in the space that is searched; chunks are made anew
BEGIN_BUILD = """
INSERT INTO dataset_spaces AS o (dataset_id, space_id, provider_id, state, automatic, batch_hours)
VALUES ($1, $2, $3, 'next', $4, $5)
-- one that was kept for a rollback is whole, or nearly
ON CONFLICT (dataset_id, space_id) DO UPDATE SET
    state = 'next', automatic = EXCLUDED.automatic, provider_id = EXCLUDED.provider_id, batch_hours = EXCLUDED.batch_hours
WHERE o.state <> 'dropped'
"""
DOCUMENTS_DUE = """
INSERT INTO chunk_work (space_id, document_id)
SELECT $2, id FROM documents WHERE dataset_id = $1 AND (recipe IS NOT NULL OR content IS NOT NULL) ON CONFLICT DO NOTHING
"""


async def start(
    tx: Tx,
    dataset_id: UUID,
    space_id: int,
    provider_id: UUID | None,
    *,
    automatic: bool = False,
    batch_hours: float | None = None,
) -> None:
    """Begin to write a dataset's changes to another space, too; with `batch_hours` batch jobs fill it. Needs `lock`."""
    await _change_table(tx, "SELECT evervec_add_space($1)", space_id)
    await tx.execute(BEGIN_BUILD, dataset_id, space_id, provider_id, automatic, batch_hours)


# nobody sees a change before its commit: the number is taken by whoever looks first after it
SEEN = """
UPDATE dataset_spaces SET seen_xid = pg_snapshot_xmax(pg_current_snapshot())
WHERE dataset_id = $1 AND space_id = $2 AND seen_xid IS NULL
"""
# A writer has its number before its trigger looks. One that reads a snapshot from before (REPEATABLE READ) may not have
# written anything yet: then only its session tells; our own write in READ COMMITTED alone. Of sessions of other roles only
# this much is told, also to a role without rights.
OLDER_WRITERS_ENDED = """
SELECT pg_snapshot_xmin(pg_current_snapshot()) >= o.seen_xid
   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = current_database() AND a.usesysid IS NOT NULL
                   AND a.application_name NOT LIKE 'evervec%' AND age(a.backend_xmin) > age(o.seen_xid::xid))
FROM dataset_spaces o WHERE o.dataset_id = $1 AND o.space_id = $2
"""


async def older_writers_ended(tx: Tx, dataset_id: UUID, space_id: int) -> bool:
    """Return whether every transaction has ended that may have written without knowing that a space began, or was dropped."""
    await tx.execute(SEEN, dataset_id, space_id)
    return bool(await tx.fetchval(OLDER_WRITERS_ENDED, dataset_id, space_id))


# of a record that is there already the text may be newer than the copy; chunks are made for the space
TAKE_IN = f"""
WITH batch AS MATERIALIZED (
    SELECT e.vector_id, e.kind, e.row_id, e.content_hash, e.failed_hash FROM embeddings e
    WHERE e.dataset_id = $1 AND e.space_id = $2 AND e.vector_id > $4
      AND (e.kind <> {CHUNK.kind} OR EXISTS (SELECT FROM chunks c WHERE c.id = e.row_id AND c.space_id = 0))
    ORDER BY e.vector_id LIMIT $5
), added AS (
    INSERT INTO embeddings (space_id, kind, row_id, dataset_id, content_hash, failed_hash)
    -- what somebody discarded stays so; what failed here may not fail there
    SELECT $3, kind, row_id, $1, content_hash, CASE WHEN content_hash IS NULL THEN failed_hash END FROM batch
    ON CONFLICT (kind, row_id, space_id) DO NOTHING
)
SELECT max(vector_id) FROM batch
"""
# a row may have been deleted, or moved to another dataset, while its record was copied
REMOVE_LOST = "; ".join(
    f"DELETE FROM embeddings e WHERE e.dataset_id = '{{dataset}}' AND e.space_id = {{space:d}} AND e.kind = {one.kind} "
    f"AND e.pending_id IS NOT NULL AND NOT EXISTS (SELECT FROM {one.table} r WHERE r.{one.key} = e.row_id AND r.{one.dataset} = e.dataset_id)"
    for one in EMBEDDABLES
)


async def take_in(tx: Tx, dataset_id: UUID, space_id: int, *, present: int, after: int, limit: int) -> int | None:
    """Give rows of a dataset that have a record in the `present` space one in another; return where to go on, None at the end."""
    reached: int | None = await tx.fetchval(TAKE_IN, dataset_id, present, space_id, after, limit)
    return reached


async def taken_in(tx: Tx, dataset_id: UUID, space_id: int) -> None:
    """Remember that every row of a dataset has a record in a space, since this transaction."""
    await tx.execute(
        "UPDATE dataset_spaces SET taken_in_at = coalesce(taken_in_at, now()), seen_xid = NULL "
        "WHERE dataset_id = $1 AND space_id = $2",
        dataset_id,
        space_id,
    )


async def indexed(tx: Tx, dataset_id: UUID, space_id: int) -> None:
    """Remember that the vectors of a space are indexed; remove records of lost rows. Needs `older_writers_ended`."""
    await tx.execute(REMOVE_LOST.format(dataset=dataset_id, space=space_id))
    await tx.execute(
        "UPDATE dataset_spaces SET indexed_at = coalesce(indexed_at, now()) WHERE dataset_id = $1 AND space_id = $2",
        dataset_id,
        space_id,
    )


async def documents_due(tx: Tx, dataset_id: UUID, space_id: int) -> None:
    """Let every document of a dataset wait for its chunks for a space."""
    await tx.execute(DOCUMENTS_DUE, dataset_id, space_id)


# what is looked at before a flip, from partial indexes alone: rows that wait, and rows that were given up on. One that is not
# found now either, since it was written a moment ago or failed in both spaces, is not lost by a flip
MISSED = """
SELECT count(*) FROM embeddings n LEFT JOIN embeddings c ON c.kind = n.kind AND c.row_id = n.row_id
    AND c.space_id = (SELECT d.space_id FROM datasets d WHERE d.id = $1)
WHERE n.dataset_id = $1 AND n.space_id = $2 AND {left}
  AND (c.vector_id IS NULL OR c.embedded_hash = c.content_hash OR (c.embedding IS NOT NULL AND n.embedding IS NULL))
"""
# its vector is older than so many seconds, or there is none
NOT_RECENT = "coalesce(c.embedded_at <= clock_timestamp() - make_interval(secs => $3), true)"
MISSING = f"""
SELECT ({MISSED.format(left=f"n.pending_id IS NOT NULL AND {NOT_RECENT}")}) + ({MISSED.format(left="n.failed_hash = n.content_hash")})
     + (SELECT count(*) FROM chunk_work w JOIN documents d ON d.id = w.document_id
        WHERE w.space_id = $2 AND d.dataset_id = $1)
"""


async def missing(tx: ReadTx, dataset_id: UUID, space_id: int, *, recent: float = 0) -> int:
    """Count the rows, and documents without chunks, that are found now and would not be by a search in a space.

    Rows that wait there, and are found now since less than `recent` seconds, are left out.
    """
    found: int = await tx.fetchval(MISSING, dataset_id, space_id, recent)
    return found


FEW_WAIT = """
SELECT (SELECT count(*) FROM (SELECT FROM embeddings WHERE dataset_id = $1 AND space_id = $2 AND pending_id IS NOT NULL
                              LIMIT $3 + 1) e)
     + (SELECT count(*) FROM (SELECT FROM chunk_work w JOIN documents d ON d.id = w.document_id
                              WHERE w.space_id = $2 AND d.dataset_id = $1 LIMIT $3 + 1) c) <= $3
"""


async def few_wait(tx: ReadTx, dataset_id: UUID, space_id: int, *, most: int) -> bool:
    """Return whether at most so many rows, and documents without chunks, wait in a space."""
    return bool(await tx.fetchval(FEW_WAIT, dataset_id, space_id, most))


LEASED_IN_SPACE = """
SELECT EXISTS (SELECT FROM embed_work w JOIN embeddings e ON e.vector_id = w.vector_id
               WHERE w.lease_until > now() AND e.dataset_id = $1 AND e.space_id = $2)
"""


async def in_flight(tx: ReadTx, dataset_id: UUID, space_id: int) -> bool:
    """Return whether somebody embeds rows of a dataset for a space just now."""
    return bool(await tx.fetchval(LEASED_IN_SPACE, dataset_id, space_id))


DROP_FORMER = """
UPDATE dataset_spaces SET state = 'dropped', seen_xid = NULL
WHERE dataset_id = ANY($1) AND state = 'previous' AND $2 = 'next'
"""
# what was searched takes the place of what is now
FLIP = """
WITH flipped AS (
    DELETE FROM dataset_spaces o USING datasets d WHERE o.dataset_id = d.id AND d.id = ANY($1) AND o.state = $2
    RETURNING d.id, o.space_id, o.provider_id, d.space_id AS former, d.provider_id AS former_provider
), kept AS (
    INSERT INTO dataset_spaces (dataset_id, space_id, provider_id, state, taken_in_at, indexed_at)
    SELECT id, former, former_provider, $3, now(), now() FROM flipped
), unread AS (
    INSERT INTO chunk_work (space_id, document_id)
    SELECT t.former, d.id FROM flipped t JOIN documents d ON d.dataset_id = t.id WHERE d.content IS NOT NULL
    ON CONFLICT DO NOTHING
)
UPDATE datasets d SET space_id = t.space_id, provider_id = t.provider_id FROM flipped t WHERE d.id = t.id RETURNING d.id
"""


async def flip(tx: Tx, dataset_ids: Sequence[UUID], state: str) -> list[UUID]:
    """Search some datasets in their space of a state from now on, and return those that have one.

    After the `next` one the space until now is kept as the previous, and one that was kept before is dropped; after the
    `previous` one, it is the next again. Needs `lock`.
    """
    await tx.execute(DROP_FORMER, list(dataset_ids), state)
    kept_as = PREVIOUS if state == NEXT else NEXT
    return [row["id"] for row in await tx.fetch(FLIP, list(dataset_ids), state, kept_as)]


async def drop(tx: Tx, dataset_id: UUID, space_id: int) -> bool:
    """Write to a space of a dataset no more; its vectors are removed afterwards. Return whether it was there."""
    dropped = await tx.fetchval(
        "UPDATE dataset_spaces SET state = 'dropped', seen_xid = NULL "
        "WHERE dataset_id = $1 AND space_id = $2 AND state <> 'dropped' RETURNING true",
        dataset_id,
        space_id,
    )
    return bool(dropped)


async def dropped(tx: ReadTx) -> list[tuple[UUID, int]]:
    """Return `(dataset, space)` whose vectors are to be removed."""
    rows = await tx.fetch("SELECT dataset_id, space_id FROM dataset_spaces WHERE state = 'dropped' ORDER BY created_at")
    return [(row["dataset_id"], row["space_id"]) for row in rows]


async def drop_unused(tx: Tx, space_id: int) -> bool:
    """Drop the indexes and the constraint of a space that no dataset has any more; return whether it is gone."""
    return bool(await _change_table(tx, "SELECT evervec_drop_space($1)", space_id))


async def _change_table(tx: Tx, sql: str, space_id: int) -> Any:
    """Call a function that changes the table of records. Everybody waits behind it, so it gives up soon: raises `ConflictError`."""
    await tx.execute(f"SET LOCAL lock_timeout = '{SPACE_LOCK_SECONDS}s'")
    answer = await tx.fetchval(sql, space_id)
    await tx.execute(f"SET LOCAL lock_timeout = '{ROW_LOCK_SECONDS}s'")
    return answer
