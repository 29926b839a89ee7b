"""Make the words of rows that are due, a short transaction a batch, and find the rows that no trigger saw."""

from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

from evervec.store.database.session import Database, ReadTx, Tx
from evervec.store.schema.embeddables import BY_KIND, EMBEDDABLES, Embeddable
from evervec.store.schema.populate import Step, walk
from evervec.store.schema.words import WORDS_FUNCTION

FILLED_AT_ONCE = 500
"""Rows of one transaction: a writer who changes one of them waits for so many at most."""
LANGUAGES = "SELECT cfgname FROM pg_ts_config WHERE cfgnamespace = 'pg_catalog'::regnamespace ORDER BY cfgname"

DUE_WORDS = """
SELECT kind, row_id FROM row_words WHERE words IS NULL AND ($1::uuid IS NULL OR dataset_id = $1) LIMIT $2 FOR UPDATE SKIP LOCKED
"""
# a row that is lost, because it was deleted while triggers were off, has none
LOST_WORDS = "DELETE FROM row_words WHERE kind = $1 AND row_id = ANY($2) AND words IS NULL"
AGAIN = """
WITH batch AS (
    SELECT kind, row_id FROM row_words WHERE dataset_id = $1 AND words IS NOT NULL AND language IS DISTINCT FROM $2 LIMIT $3
)
UPDATE row_words w SET words = NULL, length = NULL FROM batch b WHERE w.kind = b.kind AND w.row_id = b.row_id
"""


def words_of_kind(embeddable: Embeddable) -> str:
    """Return the statement that makes the words of some rows of a kind; those of a dataset without a language are none."""
    return f"""
    UPDATE row_words w SET language = t.language, words = f.words, length = length(f.words)
    FROM (
        SELECT r.{embeddable.key} AS row_id, d.language, {embeddable.text} AS text
        FROM {embeddable.table} r LEFT JOIN datasets d ON d.id = r.{embeddable.dataset} WHERE r.{embeddable.key} = ANY($1)
    ) t CROSS JOIN LATERAL (
        SELECT CASE WHEN t.language IS NULL THEN ''::tsvector ELSE {WORDS_FUNCTION}(t.language, t.text) END AS words
    ) f
    WHERE w.kind = {embeddable.kind} AND w.row_id = t.row_id
    """


async def fill(database: Database, dataset_id: UUID | None = None) -> int:
    """Make words that are due, in one dataset or in all, at most `FILLED_AT_ONCE`; return how many were.

    Rows that another process is at are left to it.
    """
    async with database.transaction() as tx:
        # locked first, and only then read: whoever changes a text meanwhile makes its words due again afterwards
        due = await tx.fetch(DUE_WORDS, dataset_id, FILLED_AT_ONCE)
        for kind in sorted({row["kind"] for row in due}):
            ids = [row["row_id"] for row in due if row["kind"] == kind]
            await tx.execute(words_of_kind(BY_KIND[kind]), ids)
            await tx.execute(LOST_WORDS, kind, ids)
    return len(due)


async def is_due(tx: ReadTx) -> bool:
    """Return whether words of any row are due."""
    return bool(await tx.fetchval("SELECT EXISTS (SELECT FROM row_words WHERE words IS NULL)"))


def _register(embeddable: Embeddable, *, compare: bool) -> str:
    kind, key, dataset = embeddable.kind, embeddable.key, embeddable.dataset
    wrong = "w.words IS NOT NULL" if compare else "w.dataset_id <> b.dataset_id"
    return f"""
    WITH batch AS MATERIALIZED (
        SELECT r.{key} AS row_id, r.{dataset} AS dataset_id FROM {embeddable.table} r WHERE r.{key} > $1 ORDER BY r.{key} LIMIT $2
    ), registered AS (
        INSERT INTO row_words (kind, row_id, dataset_id)
        SELECT {kind}, b.row_id, b.dataset_id FROM batch b LEFT JOIN row_words w ON w.kind = {kind} AND w.row_id = b.row_id
        WHERE w.row_id IS NULL OR {wrong}
        ON CONFLICT (kind, row_id) DO UPDATE SET dataset_id = EXCLUDED.dataset_id, language = NULL, words = NULL, length = NULL
        RETURNING 1
    )
    SELECT (SELECT max(row_id) FROM batch) AS reached, (SELECT count(*) FROM batch) AS seen,
           (SELECT count(*) FROM registered) AS touched
    """


def _remove(embeddable: Embeddable) -> str:
    return f"""
    WITH batch AS MATERIALIZED (
        SELECT row_id FROM row_words WHERE kind = {embeddable.kind} AND row_id > $1 ORDER BY row_id LIMIT $2
    ), gone AS (
        DELETE FROM row_words w USING batch b WHERE w.kind = {embeddable.kind} AND w.row_id = b.row_id
        AND NOT EXISTS (SELECT FROM {embeddable.table} r WHERE r.{embeddable.key} = b.row_id) RETURNING 1
    )
    SELECT (SELECT max(row_id) FROM batch) AS reached, (SELECT count(*) FROM batch) AS seen,
           (SELECT count(*) FROM gone) AS touched
    """


async def register(
    database: Database, embeddables: Sequence[Embeddable] = EMBEDDABLES, *, compare: bool = False, batch: int = 5000
) -> AsyncGenerator[Step, None]:
    """Say that the words of rows are due that no trigger saw; may be stopped and run again.

    With `compare`, after a time without triggers, those of all rows are, and what has no row any more is removed.
    """
    for embeddable in embeddables:
        async for reached, seen, touched in walk(database, _register(embeddable, compare=compare), batch):
            yield Step(f"{embeddable.name} words", reached, touched, 0, seen)
        if compare:
            async for reached, seen, touched in walk(database, _remove(embeddable), batch):
                yield Step(f"{embeddable.name} words", reached, 0, touched, seen)


async def languages(tx: Tx) -> list[str]:
    """Return the languages that the words of a dataset may have on this server."""
    return [row["cfgname"] for row in await tx.fetch(LANGUAGES)]


async def set_language(tx: Tx, dataset_id: UUID, language: str | None) -> None:
    """Give a dataset another language, or none; `make_due` follows."""
    await tx.execute("UPDATE datasets SET language = $2 WHERE id = $1", dataset_id, language)


async def make_due(database: Database, dataset_id: UUID, language: str | None) -> int:
    """Say that the words of some rows of a dataset are due, which are of another language; return of how many, 0 at the end."""
    async with database.transaction() as tx:
        tag = await tx.execute(AGAIN, dataset_id, language, FILLED_AT_ONCE)
    return int(tag.rsplit(" ", 1)[-1])
