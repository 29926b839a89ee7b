"""What stands around hits: the chunks before and after a chunk, and the parts of texts that hold the words of a question."""

from collections.abc import Sequence

from evervec.store.database.session import ReadTx
from evervec.store.embeddings.hits import Surroundings
from evervec.store.schema.embeddables import Embeddable
from evervec.store.words.frequencies import query_of

START_MARK, END_MARK = "«", "»"
SNIPPET_OPTIONS = (
    f'StartSel={START_MARK}, StopSel={END_MARK}, MaxWords=35, MinWords=15, MaxFragments=2, FragmentDelimiter=" … "'
)

AROUND = """
SELECT c.id, array_agg(n.content ORDER BY n.ordinal) FILTER (WHERE n.ordinal < c.ordinal) AS before,
       array_agg(n.content ORDER BY n.ordinal) FILTER (WHERE n.ordinal > c.ordinal) AS after
FROM chunks c JOIN chunks n ON n.document_id = c.document_id AND n.space_id = c.space_id
     AND n.ordinal BETWEEN c.ordinal - $2 AND c.ordinal + $2 AND n.ordinal <> c.ordinal
WHERE c.id = ANY($1) GROUP BY c.id
"""


async def around(tx: ReadTx, chunk_ids: Sequence[int], chunks: int) -> dict[int, Surroundings]:
    """Return up to so many chunks before and after each chunk, as the document has them in its space."""
    rows = await tx.fetch(AROUND, list(chunk_ids), chunks)
    return {row["id"]: Surroundings(row["before"] or [], row["after"] or []) for row in rows}


async def snippets(
    tx: ReadTx, embeddable: Embeddable, row_ids: Sequence[int], words: Sequence[str], language: str
) -> dict[int, str]:
    """Return the part of each text that has most of some words, which are marked `«so»`; its begin where it has none."""
    rows = await tx.fetch(
        f"SELECT r.{embeddable.key} AS id, ts_headline(coalesce((SELECT c.oid::regconfig FROM pg_ts_config c WHERE c.cfgname = $3 "
        f"AND c.cfgnamespace = 'pg_catalog'::regnamespace), 'pg_catalog.simple'), {embeddable.text}, $2::text::tsquery, $4) AS snippet "
        f"FROM {embeddable.table} r WHERE r.{embeddable.key} = ANY($1)",
        list(row_ids),
        " | ".join(query_of(word) for word in words),
        language,
        SNIPPET_OPTIONS,
    )
    return {row["id"]: row["snippet"] for row in rows}
