"""What waits, said once in SQL: generated columns hold the row's id while it waits, and claims, counts, views read those.

Columns and not predicates, for the planner's sake. It takes `embedded_hash IS DISTINCT FROM content_hash` for true of
nearly every row and walks a primary key of a million rows for the few that wait. Of a column it knows how many are
NULL, and no index but the partial one has that column's order (docs/decisions/0007).
"""

_PENDING = (
    "content_hash IS NOT NULL AND embedded_hash IS DISTINCT FROM content_hash "
    "AND failed_hash IS DISTINCT FROM content_hash"
)
PENDING_ID = f"CASE WHEN {_PENDING} THEN vector_id ELSE NULL::bigint END"
"""Law 2: a row needs embedding exactly when `embeddings.pending_id` is not NULL; then it is the `vector_id`."""

UNSCORED_ID = "CASE WHEN scored_revision IS DISTINCT FROM revision THEN id ELSE NULL::bigint END"
UNEXTRACTED_ID = (
    "CASE WHEN scored_revision = revision AND extracted_revision IS DISTINCT FROM revision "
    "AND (signal <> 'noise'::text OR extracted_revision IS NOT NULL) THEN id ELSE NULL::bigint END"
)
"""A message is extracted once it is scored; noise only when an earlier revision of it was extracted."""

PENDING = "pending_id IS NOT NULL"
