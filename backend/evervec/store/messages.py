"""Messages: saved by the identity that their source gives them, then scored, then extracted; the row keeps each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import orjson

from evervec.domain.extraction.knowledge import MessageText, Score
from evervec.domain.extraction.message import IncomingMessage
from evervec.store.database.session import ReadTx, Tx

UPSERT_MESSAGES = """
INSERT INTO messages AS m (dataset_id, chat, external_id, author, sent_at, edited_at, reply_to, content)
SELECT $1, v.* FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[]) v
ON CONFLICT (dataset_id, chat, external_id) DO UPDATE SET
    author = EXCLUDED.author, sent_at = EXCLUDED.sent_at, edited_at = EXCLUDED.edited_at,
    reply_to = EXCLUDED.reply_to, content = EXCLUDED.content
-- an equal message is not written, and an older export never undoes a later edit
WHERE (m.content, m.edited_at, m.author, m.sent_at, m.reply_to)
      IS DISTINCT FROM (EXCLUDED.content, EXCLUDED.edited_at, EXCLUDED.author, EXCLUDED.sent_at, EXCLUDED.reply_to)
  AND coalesce(EXCLUDED.edited_at, EXCLUDED.sent_at) >= coalesce(m.edited_at, m.sent_at)
RETURNING m.id, m.revision = 1 AND m.xmax = 0 AS created
"""

NEW_TEXTS = """
SELECT v.content FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::text[]) v (chat, external_id, at, content)
LEFT JOIN messages m ON m.dataset_id = $1 AND m.chat = v.chat AND m.external_id = v.external_id
WHERE m.id IS NULL OR (m.content <> v.content AND v.at >= coalesce(m.edited_at, m.sent_at))
"""


@dataclass(frozen=True)
class SavedMessages:
    """The result of an upsert: ids of new messages, ids of changed ones, and how many were the same."""

    created: list[int]
    changed: list[int]
    unchanged: int


async def upsert(tx: Tx, dataset_id: UUID, incoming: Sequence[IncomingMessage]) -> SavedMessages:
    """Save messages; an equal message changes nothing, an edited one becomes a new revision."""
    latest = _latest(incoming)
    fields = [(m.chat, m.external_id, m.author, m.sent_at, m.edited_at, m.reply_to, m.text) for m in latest]
    rows = await tx.fetch(
        UPSERT_MESSAGES, dataset_id, *([list(column) for column in zip(*fields, strict=True)] or [[]] * 7)
    )
    created = [row["id"] for row in rows if row["created"]]
    changed = [row["id"] for row in rows if not row["created"]]
    return SavedMessages(created, changed, len(latest) - len(rows))


async def new_texts(tx: ReadTx, dataset_id: UUID, incoming: Sequence[IncomingMessage]) -> list[str]:
    """Return the texts that an upsert would write: of messages that are not there, or have another text."""
    fields = [(m.chat, m.external_id, m.edited_at or m.sent_at, m.text) for m in _latest(incoming)]
    rows = await tx.fetch(NEW_TEXTS, dataset_id, *([list(column) for column in zip(*fields, strict=True)] or [[]] * 4))
    return [row["content"] for row in rows]


def _latest(incoming: Sequence[IncomingMessage]) -> list[IncomingMessage]:
    """Return the messages as they are in the end, where one comes several times."""
    by_age = sorted(incoming, key=lambda m: m.edited_at or m.sent_at)
    return list({(m.chat, m.external_id): m for m in by_age}.values())


@dataclass(frozen=True)
class ClaimedMessage:
    """A message under a lease for scoring or extraction, at one revision of its text."""

    message: MessageText
    dataset_id: UUID
    revision: int
    attempts: int
    signal: str | None


CLAIM_MESSAGES = """
WITH picked AS (
    SELECT m.id, m.dataset_id, m.content, m.author, m.sent_at, m.chat, m.reply_to, m.revision, m.signal
    FROM messages m LEFT JOIN extract_work w ON w.message_id = m.id
    WHERE {scope} AND m.{waits} IS NOT NULL
      AND (w.message_id IS NULL OR w.revision <> m.revision
           OR (w.dead_at IS NULL AND w.not_before <= now() AND (w.lease_until IS NULL OR w.lease_until < now())))
      AND EXISTS (SELECT FROM datasets d JOIN projects p ON p.id = d.project_id
                  WHERE d.id = m.dataset_id AND d.deleted_at IS NULL AND p.deleted_at IS NULL)
    ORDER BY m.{waits} LIMIT $2 FOR UPDATE OF m SKIP LOCKED
), leased AS (
    INSERT INTO extract_work AS w (message_id, revision, lease_owner, lease_until)
    SELECT id, revision, $3, now() + $4 FROM picked
    ON CONFLICT (message_id) DO UPDATE SET
        revision = EXCLUDED.revision, lease_owner = EXCLUDED.lease_owner, lease_until = EXCLUDED.lease_until,
        dead_at = NULL,
        attempts = CASE WHEN w.revision = EXCLUDED.revision
                        THEN w.attempts + (w.lease_until IS NOT NULL)::int ELSE 0 END,
        not_before = CASE WHEN w.revision = EXCLUDED.revision THEN w.not_before ELSE now() END,
        last_code = CASE WHEN w.revision = EXCLUDED.revision THEN w.last_code END,
        last_error = CASE WHEN w.revision = EXCLUDED.revision THEN w.last_error END
    WHERE w.revision <> EXCLUDED.revision
       OR (w.dead_at IS NULL AND w.not_before <= now() AND (w.lease_until IS NULL OR w.lease_until < now()))
    RETURNING message_id, attempts
)
-- the texts are those of the locked rows, so that an edit between snapshot and lock is not missed
SELECT m.id, m.dataset_id, m.content, m.author, m.sent_at, m.revision, m.signal, l.attempts, (
    -- looked up one by one: a join might read all messages for the few that are replies
    SELECT a.id FROM messages a WHERE a.dataset_id = m.dataset_id AND a.chat = m.chat AND a.external_id = m.reply_to
) AS answers
FROM leased l JOIN picked m ON m.id = l.message_id
ORDER BY m.sent_at, m.id
"""
WAITING_COLUMNS = {"score": "unscored_id", "extract": "unextracted_id"}
"""The generated column that holds a message's id while it waits for a stage."""


def claim_sql(stage: str, *, of_dataset: bool) -> str:
    """Return the claim for a stage: `$1` a dataset id or message ids, `$2` the limit, `$3` the owner, `$4` the lease."""
    return CLAIM_MESSAGES.format(
        scope="m.dataset_id = $1" if of_dataset else "m.id = ANY($1)", waits=WAITING_COLUMNS[stage]
    )


async def claim(
    tx: Tx, stage: str, *, ids: Sequence[int] | UUID, limit: int, owner: UUID, lease: float
) -> list[ClaimedMessage]:
    """Lease messages that wait for a stage (`score` or `extract`): of the given ids, or of a dataset."""
    of_dataset = isinstance(ids, UUID)
    given = ids if isinstance(ids, UUID) else list(ids)
    rows = await tx.fetch(claim_sql(stage, of_dataset=of_dataset), given, limit, owner, timedelta(seconds=lease))
    return [
        ClaimedMessage(
            MessageText(row["id"], row["content"], row["author"], row["sent_at"], row["answers"]),
            row["dataset_id"],
            row["revision"],
            row["attempts"],
            row["signal"],
        )
        for row in rows
    ]


async def datasets_of(tx: ReadTx, ids: Sequence[int]) -> list[UUID]:
    """Return the datasets of those messages that exist."""
    rows = await tx.fetch("SELECT DISTINCT dataset_id FROM messages WHERE id = ANY($1) ORDER BY 1", list(ids))
    return [row["dataset_id"] for row in rows]


async def extraction_is_due(tx: ReadTx, dataset_id: UUID, size: int) -> bool:
    """Return whether `size` messages of a dataset wait for extraction, or no more are on their way there."""
    found: bool = await tx.fetchval(
        """
        SELECT (SELECT count(*) FROM (SELECT FROM messages WHERE dataset_id = $1 AND unextracted_id IS NOT NULL
                                      LIMIT $2) s) = $2
            OR NOT EXISTS (SELECT FROM messages m LEFT JOIN extract_work w ON w.message_id = m.id
                           WHERE m.dataset_id = $1 AND m.unscored_id IS NOT NULL
                             -- a message that waits after a failure is not on its way
                             AND (w.message_id IS NULL OR w.revision <> m.revision OR w.last_error IS NULL))
        """,
        dataset_id,
        size,
    )
    return found


async def renew(tx: Tx, owner: UUID, *, lease: float) -> None:
    """Extend every lease of an owner."""
    await tx.execute(
        "UPDATE extract_work SET lease_until = now() + $2 WHERE lease_owner = $1", owner, timedelta(seconds=lease)
    )


async def mark_scored(tx: Tx, owner: UUID, claimed: Sequence[ClaimedMessage], scores: Sequence[Score]) -> list[int]:
    """Save the scores of messages whose text is still the scored one; return the ids that are worth extracting."""
    rows = await tx.fetch(
        """
        UPDATE messages m SET score = v.score, signal = v.signal, score_factors = v.factors::jsonb,
                              scored_revision = m.revision
        FROM unnest($1::bigint[], $2::int[], $3::real[], $4::text[], $5::text[]) AS v (id, rev, score, signal, factors)
        WHERE m.id = v.id AND m.revision = v.rev RETURNING m.id, m.unextracted_id IS NOT NULL AS wanted
        """,
        [c.message.message_id for c in claimed],
        [c.revision for c in claimed],
        [min(1.0, max(0.0, score.value)) for score in scores],
        [str(score.signal) for score in scores],
        [orjson.dumps(dict(score.factors)).decode() for score in scores],
    )
    await _finish(tx, owner, [c.message.message_id for c in claimed])
    return [row["id"] for row in rows if row["wanted"]]


async def update_messages(tx: Tx, owner: UUID, claimed: Sequence[ClaimedMessage]) -> list[int]:
    """Mark messages extracted if their text is still the extracted one; return their ids."""
    ids = [c.message.message_id for c in claimed]
    rows = await tx.fetch(
        "UPDATE messages m SET extracted_revision = m.revision FROM unnest($1::bigint[], $2::int[]) AS v (id, rev) "
        "WHERE m.id = v.id AND m.revision = v.rev RETURNING m.id",
        ids,
        [c.revision for c in claimed],
    )
    await _finish(tx, owner, ids)
    return [row["id"] for row in rows]


async def _finish(tx: Tx, owner: UUID, ids: Sequence[int]) -> None:
    await tx.execute("DELETE FROM extract_work WHERE lease_owner = $1 AND message_id = ANY($2)", owner, list(ids))


async def release(tx: Tx, owner: UUID, ids: Sequence[int]) -> None:
    """Release messages as they were: earlier failures stay counted, no failure is added."""
    await tx.execute(
        "DELETE FROM extract_work WHERE lease_owner = $1 AND message_id = ANY($2) AND attempts = 0",
        owner,
        list(ids),
    )
    await tx.execute(
        "UPDATE extract_work SET lease_owner = NULL, lease_until = NULL WHERE lease_owner = $1 AND message_id = ANY($2)",
        owner,
        list(ids),
    )


async def back_off(tx: Tx, owner: UUID, ids: Sequence[int], *, code: str, error: str, most: int | None) -> None:
    """Count a failure: each one doubles the wait, from one second to five minutes; failure number `most` is final."""
    await tx.execute(
        """
        UPDATE extract_work SET attempts = attempts + 1, last_code = $3, last_error = $4,
            not_before = now() + least(300, 2 ^ least(attempts, 10)) * interval '1 second',
            lease_owner = NULL, lease_until = NULL, dead_at = CASE WHEN attempts + 1 >= $5 THEN now() END
        WHERE lease_owner = $1 AND message_id = ANY($2)
        """,
        owner,
        list(ids),
        code,
        error,
        most,
    )


async def delay(tx: Tx, owner: UUID, ids: Sequence[int], *, seconds: float, code: str, error: str) -> None:
    """Make messages wait for a reason that is not their own: no failure is counted."""
    await tx.execute(
        "UPDATE extract_work SET not_before = now() + $3, last_code = $4, last_error = $5, lease_owner = NULL, "
        "lease_until = NULL WHERE lease_owner = $1 AND message_id = ANY($2)",
        owner,
        list(ids),
        timedelta(seconds=seconds),
        code,
        error,
    )


def waiting_sql(stage: str) -> str:
    """Return the query for messages that wait for a stage and can be claimed: `$1` is the limit."""
    return f"""
        SELECT m.dataset_id, m.id FROM messages m LEFT JOIN extract_work w ON w.message_id = m.id
        JOIN datasets d ON d.id = m.dataset_id AND d.deleted_at IS NULL
        JOIN projects p ON p.id = d.project_id AND p.deleted_at IS NULL
        WHERE m.{WAITING_COLUMNS[stage]} IS NOT NULL
          AND (w.message_id IS NULL OR w.revision <> m.revision
               OR (w.dead_at IS NULL AND w.not_before <= now() AND (w.lease_until IS NULL OR w.lease_until < now())))
        ORDER BY m.dataset_id, m.{WAITING_COLUMNS[stage]} LIMIT $1
    """


async def waiting(tx: ReadTx, stage: str, *, limit: int) -> Mapping[UUID, list[int]]:
    """Return ids of messages that wait for a stage and are not leased, by live dataset, oldest first."""
    found: dict[UUID, list[int]] = {}
    for row in await tx.fetch(waiting_sql(stage), limit):
        found.setdefault(row["dataset_id"], []).append(row["id"])
    return found


async def progress(tx: ReadTx, dataset_ids: Sequence[UUID]) -> dict[str, int]:
    """Count the messages of datasets: all, unscored, unextracted, dead."""
    row = await tx.fetchrow(
        """
        SELECT count(*) AS messages, count(m.unscored_id) AS unscored, count(m.unextracted_id) AS unextracted,
               count(*) FILTER (WHERE w.dead_at IS NOT NULL AND w.revision = m.revision) AS dead
        FROM messages m LEFT JOIN extract_work w ON w.message_id = m.id WHERE m.dataset_id = ANY($1)
        """,
        list(dataset_ids),
    )
    return {} if row is None else dict(row)


async def retry(tx: Tx, dataset_ids: Sequence[UUID], *, message_id: int | None = None) -> int:
    """Let failed messages be scored and extracted again, all or one; return how many."""
    tag = await tx.execute(
        "DELETE FROM extract_work w USING messages m WHERE m.id = w.message_id AND w.dead_at IS NOT NULL "
        "AND m.dataset_id = ANY($1) AND ($2::bigint IS NULL OR m.id = $2)",
        list(dataset_ids),
        message_id,
    )
    return int(tag.rsplit(" ", 1)[-1])
