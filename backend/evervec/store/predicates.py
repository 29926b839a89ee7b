"""What waits, said once in SQL: indexes, claims, counts and views all use these words."""

PENDING = (
    "content_hash IS NOT NULL AND embedded_hash IS DISTINCT FROM content_hash "
    "AND failed_hash IS DISTINCT FROM content_hash"
)
"""Law 2: a row needs embedding exactly when this holds."""

UNSCORED = "scored_revision IS DISTINCT FROM revision"
UNEXTRACTED = (
    "scored_revision = revision AND extracted_revision IS DISTINCT FROM revision "
    "AND (signal <> 'noise' OR extracted_revision IS NOT NULL)"
)
"""A message is extracted once it is scored; noise only when an earlier revision of it was extracted."""
