"""Functions, triggers and the status view: derived from the declarations, so `install` may run at any time again."""

from evervec.domain.text import BLANK_PATTERN
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable

# The vector follows its text: a moved row or a vanished vector leaves a tombstone for the mirrors, and a vector
# set by anybody who does not know about changed_xid still shows up in the feed.
VECTOR_CHANGED = (
    """
CREATE OR REPLACE FUNCTION evervec_vector_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.content_hash IS NULL OR NEW.embedding IS NULL THEN
        NEW.embedding := NULL; NEW.embedded_hash := NULL; NEW.space_id := NULL; NEW.embedded_at := NULL;
    END IF;
    IF OLD.embedding IS NOT NULL AND (NEW.embedding IS NULL OR NEW.dataset_id <> OLD.dataset_id) THEN
        INSERT INTO vector_tombstones (vector_id, dataset_id) VALUES (OLD.vector_id, OLD.dataset_id);
    END IF;
    NEW.changed_xid := pg_current_xact_id();
    RETURN NEW;
END $$
""",
    """
CREATE OR REPLACE TRIGGER evervec_vector_changed BEFORE UPDATE OF embedding, content_hash, dataset_id ON embeddings
    FOR EACH ROW WHEN (
        NEW.embedding IS NULL OR NEW.content_hash IS NULL OR NEW.dataset_id <> OLD.dataset_id
        OR (NEW.changed_xid = OLD.changed_xid AND NEW.embedding IS DISTINCT FROM OLD.embedding)
    ) EXECUTE FUNCTION evervec_vector_changed()
""",
    "ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed",
    """
CREATE OR REPLACE FUNCTION evervec_vector_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.embedding IS NOT NULL THEN
        INSERT INTO vector_tombstones (vector_id, dataset_id) VALUES (OLD.vector_id, OLD.dataset_id);
    END IF;
    -- a replica applies deletes without firing foreign keys
    DELETE FROM embed_work WHERE vector_id = OLD.vector_id;
    RETURN NULL;
END $$
""",
    """
CREATE OR REPLACE TRIGGER evervec_vector_deleted AFTER DELETE ON embeddings
    FOR EACH ROW EXECUTE FUNCTION evervec_vector_deleted()
""",
    "ALTER TABLE embeddings ENABLE ALWAYS TRIGGER evervec_vector_deleted",
)

# A text that changed is a new revision: it has to be scored and extracted again.
MESSAGE_REVISED = (
    """
CREATE OR REPLACE FUNCTION evervec_message_revised() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END $$
""",
    """
CREATE OR REPLACE TRIGGER evervec_message_revised BEFORE UPDATE OF content ON messages
    FOR EACH ROW WHEN (NEW.content IS DISTINCT FROM OLD.content) EXECUTE FUNCTION evervec_message_revised()
""",
    "ALTER TABLE messages ENABLE ALWAYS TRIGGER evervec_message_revised",
)

STATUS_VIEW = (
    """
CREATE OR REPLACE VIEW embedding_status AS
SELECT e.vector_id, e.kind, e.row_id, e.dataset_id,
       CASE WHEN e.content_hash IS NULL THEN 'EMPTY'
            WHEN e.embedded_hash = e.content_hash THEN 'READY'
            WHEN e.failed_hash = e.content_hash THEN 'FAILED'
            ELSE 'PENDING' END AS embedding_status,
       CASE WHEN e.embedded_hash IS DISTINCT FROM e.content_hash THEN w.last_error END AS error_message,
       w.attempts, w.not_before, w.lease_until, e.embedded_at
FROM embeddings e LEFT JOIN embed_work w ON w.vector_id = e.vector_id AND w.content_hash = e.content_hash
""",
)


def content_hash(embeddable: Embeddable) -> str:
    """Return SQL over alias `r` for the digest of the vector text, NULL when there is nothing to embed."""
    text = embeddable.text
    return f"CASE WHEN {text} !~ '{BLANK_PATTERN}' THEN sha256(convert_to({text}, 'UTF8')) END"


def _track(embeddable: Embeddable) -> tuple[str, ...]:
    """Return the triggers that keep one table's records in `embeddings`, in the writer's own transaction."""
    table, name = embeddable.table, f"evervec_track_{embeddable.table}"
    watched = (embeddable.key, embeddable.dataset, *embeddable.columns)
    changed = " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in watched)
    run = f"EXECUTE FUNCTION {name}()"
    return (
        _track_function(embeddable, name),
        f"CREATE OR REPLACE TRIGGER {name} AFTER INSERT OR DELETE ON {table} FOR EACH ROW {run}",
        f"CREATE OR REPLACE TRIGGER {name}_update AFTER UPDATE OF {', '.join(watched)} ON {table} "
        f"FOR EACH ROW WHEN ({changed}) {run}",
        f"CREATE OR REPLACE TRIGGER {name}_truncate AFTER TRUNCATE ON {table} {run}",
        *(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}{suffix}" for suffix in ("", "_update", "_truncate")),
    )


def _track_function(embeddable: Embeddable, name: str) -> str:
    kind, key, dataset = embeddable.kind, embeddable.key, embeddable.dataset
    digest = content_hash(embeddable).replace("r.", "NEW.")
    return f"""
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM embeddings WHERE kind = {kind};
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.{key} IS DISTINCT FROM OLD.{key}) THEN
        DELETE FROM embeddings WHERE kind = {kind} AND row_id = OLD.{key};
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO embeddings (kind, row_id, dataset_id, content_hash)
        VALUES ({kind}, NEW.{key}, NEW.{dataset}, {digest})
        ON CONFLICT (kind, row_id) DO UPDATE
        SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        WHERE embeddings.dataset_id <> EXCLUDED.dataset_id
           OR embeddings.content_hash IS DISTINCT FROM EXCLUDED.content_hash;
    END IF;
    RETURN NULL;
END $$
"""


def install() -> list[str]:
    """Return the statements that bring functions, triggers and the view up to date; they may run again at any time."""
    tracked = [statement for embeddable in EMBEDDABLES for statement in _track(embeddable)]
    return [*VECTOR_CHANGED, *MESSAGE_REVISED, *tracked, *STATUS_VIEW]
