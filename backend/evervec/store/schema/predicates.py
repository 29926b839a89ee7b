"""The predicates of what waits, written once in SQL.

Generated columns hold the row's id while it waits; claims, counts and views read those.

They are columns because of the planner. It estimates that `embedded_hash IS DISTINCT FROM content_hash` is true of nearly
every row, and would walk the primary key of a million rows for the few that wait. For a column it knows how many values
are NULL, and only the partial index has that column's order (docs/decisions/0007).
"""

_PENDING = (
    "content_hash IS NOT NULL AND embedded_hash IS DISTINCT FROM content_hash "
    "AND failed_hash IS DISTINCT FROM content_hash"
)
PENDING_ID = f"CASE WHEN {_PENDING} THEN vector_id ELSE NULL::bigint END"
"""A row needs embedding exactly when `embeddings.pending_id` is not NULL; then it is the `vector_id`."""

UNSCORED_ID = "CASE WHEN scored_revision IS DISTINCT FROM revision THEN id ELSE NULL::bigint END"
UNEXTRACTED_ID = (
    "CASE WHEN scored_revision = revision AND extracted_revision IS DISTINCT FROM revision "
    "AND (signal <> 'noise'::text OR extracted_revision IS NOT NULL) THEN id ELSE NULL::bigint END"
)
"""A message is extracted once it is scored; noise only when an earlier revision of it was extracted."""

PENDING = "pending_id IS NOT NULL"

EXACT_SEARCH_BELOW = 20_000
"""Fewer rows than this are compared one by one: exact, in about 20 ms. In an HNSW graph of many nearly equal rows (one long
log or table) some others can not be reached, whatever `ef_search` is: see decision 0013."""
