"""Functions, triggers and the status view: derived from the declarations, so `install` may run at any time again.

They run inside the statements of other programs, whatever these have set and whoever they are. So every name is written with
its schema, every function has a search path of its own that nobody else can write to, and runs with the rights of the role
that migrated the database.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from evervec.domain.text import BLANK_PATTERN
from evervec.store.database.connections import quoted
from evervec.store.database.rights import CHUNKS_VIEW
from evervec.store.schema import views
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable
from evervec.store.schema.words import QUIET, WORDS, WORDS_FUNCTION, WORDS_RESTORED, kept_words

OLD_INDEX = "embeddings_hnsw_before_"
"""The begin of the names of HNSW indexes from before a dataset could have a space of its own."""

SAFE = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"

# The vector follows its text: a moved row or a vanished vector leaves a tombstone for the mirrors, and a vector
# set by anybody who does not know about changed_xid still shows up in the feed.
VECTOR_CHANGED = """
BEGIN
    IF NEW.content_hash IS NULL OR NEW.embedding IS NULL THEN
        NEW.embedding := NULL; NEW.embedded_hash := NULL; NEW.embedded_at := NULL;
    END IF;
    IF OLD.embedding IS NOT NULL AND (NEW.embedding IS NULL OR NEW.dataset_id <> OLD.dataset_id) THEN
        INSERT INTO {schema}.vector_tombstones (vector_id, dataset_id) VALUES (OLD.vector_id, OLD.dataset_id);
    END IF;
    NEW.changed_xid := pg_current_xact_id();
    RETURN NEW;
END"""

# Rows are compared as bytes: the operators of an extension have a schema, and a restore does not look there.
VECTOR_IS_NEW = """
    NEW.embedding IS NULL OR NEW.content_hash IS NULL OR NEW.dataset_id <> OLD.dataset_id
    OR (NEW.changed_xid = OLD.changed_xid AND pg_catalog.record_image_ne(ROW(NEW.embedding), ROW(OLD.embedding)))
"""

VECTOR_DELETED = """
BEGIN
    IF OLD.embedding IS NOT NULL THEN
        INSERT INTO {schema}.vector_tombstones (vector_id, dataset_id) VALUES (OLD.vector_id, OLD.dataset_id);
    END IF;
    -- a replica applies deletes without firing foreign keys
    DELETE FROM {schema}.embed_work WHERE vector_id = OLD.vector_id;
    RETURN NULL;
END"""

# A dump of the data alone brings records that the triggers of its rows made again a moment before, or are about to:
# the dumped ones have the vectors, so they win, and a new record gives way with its id.
VECTOR_RESTORED = """
DECLARE
    has_vector boolean;
BEGIN
    SELECT bool_or(embedding IS NOT NULL AND kind = NEW.kind AND row_id = NEW.row_id AND space_id = NEW.space_id)
    INTO has_vector FROM {schema}.embeddings
    WHERE (kind = NEW.kind AND row_id = NEW.row_id AND space_id = NEW.space_id) OR vector_id = NEW.vector_id;
    IF has_vector IS NULL THEN
        RETURN NEW; -- as nearly always: neither the row nor the id is taken
    ELSIF has_vector AND NEW.embedding IS NULL THEN
        RETURN NULL;
    END IF;
    DELETE FROM {schema}.embeddings
    WHERE kind = NEW.kind AND row_id = NEW.row_id AND space_id = NEW.space_id AND embedding IS NULL;
    DELETE FROM {schema}.embed_work w USING {schema}.embeddings e
    WHERE e.vector_id = NEW.vector_id AND e.embedding IS NULL AND w.vector_id = e.vector_id;
    UPDATE {schema}.embeddings SET vector_id = DEFAULT WHERE vector_id = NEW.vector_id AND embedding IS NULL;
    RETURN NEW;
END"""

# A text that changed is a new revision: it has to be scored and extracted again.
MESSAGE_REVISED = """
BEGIN
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END"""

# What a dataset gets that names none; 0 until there is any. So does a row that a replica applies before its dataset.
DEFAULT_SPACE = "(SELECT a.id FROM {schema}.embedding_spaces a WHERE a.state = 'active')"

DATASET_ADDED = f"""
BEGIN
    NEW.space_id := coalesce({DEFAULT_SPACE}, 0);
    RETURN NEW;
END"""

# A row has a record for each space of its dataset; a chunk only for the space that it was made for.
SPACES_OF_ROW = f"""
    SELECT coalesce((SELECT d.space_id FROM {{schema}}.datasets d WHERE d.id = NEW.{{dataset}}), {DEFAULT_SPACE}, 0) AS id
    UNION ALL SELECT o.space_id FROM {{schema}}.dataset_spaces o WHERE o.dataset_id = NEW.{{dataset}} AND o.state <> 'dropped'
"""

TRACK = f"""
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM {{schema}}.embeddings WHERE kind = {{kind}};
        {{forget_every}}
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.{{key}} IS DISTINCT FROM OLD.{{key}}) THEN
        DELETE FROM {{schema}}.embeddings WHERE kind = {{kind}} AND row_id = OLD.{{key}};
        {{forget}}
    END IF;
    IF TG_OP = 'UPDATE' AND ({{moved}}) THEN
        DELETE FROM {{schema}}.embeddings WHERE kind = {{kind}} AND row_id = NEW.{{key}}
          AND space_id NOT IN (SELECT s.id FROM ({SPACES_OF_ROW}) s WHERE {{its_space}});
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {{schema}}.embeddings AS e (space_id, kind, row_id, dataset_id, content_hash)
        SELECT s.id, {{kind}}, NEW.{{key}}, NEW.{{dataset}}, {{digest}} FROM ({SPACES_OF_ROW}) s WHERE {{its_space}}
        ON CONFLICT (kind, row_id, space_id) DO UPDATE
        SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        WHERE e.dataset_id <> EXCLUDED.dataset_id OR e.content_hash IS DISTINCT FROM EXCLUDED.content_hash;
        {{keep}}
    END IF;
    RETURN NULL;
END"""

# Of a document that is written for the present space, the chunks for the others are due.
DOCUMENT_WRITTEN = """
BEGIN
    INSERT INTO {schema}.chunk_work (space_id, document_id)
    SELECT o.space_id, NEW.id FROM {schema}.dataset_spaces o WHERE o.dataset_id = NEW.dataset_id AND o.state <> 'dropped'
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END"""

# Waits shortly and often: whoever comes behind such a wait stands still, and none is so long that a deadlock is looked for.
LOCK = """
    FOR attempt IN 1..200 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '50ms', true);
            {lock};
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 200 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', waiting, true);
"""
# a reader has a view before its tables, so the views that are made again are locked with them
LOCK_VECTORS = LOCK.format(
    lock="""EXECUTE (SELECT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', string_agg(c.oid::regclass::text, ', ')) FROM pg_class c
                     WHERE c.relnamespace = '{schema}'::regnamespace AND (c.relname = 'embeddings' OR c.relname ~ '^{view}(_[0-9]+)?$'))"""
)
LOCK_TABLES = LOCK.format(lock="LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")

# What needs the owner's rights when a space is made, for roles that have none: only vectors of its width are accepted for it.
# The rows that are there are of other spaces, and are not looked at. An index from before there were several takes one width.
ADD_SPACE = f"""
DECLARE
    waiting text := current_setting('lock_timeout');
    width integer;
    home text;
    old text;
    made text := 'embeddings_width_' || space;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('{{schema}}', 0));
    SELECT s.dimensions INTO STRICT width FROM {{schema}}.embedding_spaces s WHERE s.id = space;
    IF NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = '{{schema}}.embeddings'::regclass AND c.conname = made) THEN
        {LOCK_VECTORS.strip()}
        FOR old IN SELECT format('{{schema}}.%I', c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE i.indrelid = '{{schema}}.embeddings'::regclass AND starts_with(c.relname, '{OLD_INDEX}') LOOP
            EXECUTE 'DROP INDEX ' || old;
        END LOOP;
        SELECT quote_ident(n.nspname) INTO STRICT home
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
        EXECUTE format('ALTER TABLE {{schema}}.embeddings ADD CONSTRAINT %I CHECK (space_id <> %s OR %s.vector_dims(embedding) = %s) NOT VALID',
            made, space, home, width);
        PERFORM {{schema}}.{{show}}();
    ELSIF to_regclass('{{schema}}.{{view}}_' || space) IS NULL THEN
        PERFORM {{schema}}.{{show}}();
    END IF;
END"""

# The indexes, the constraint and the view of a space that no dataset has any more; `false` if one has.
DROP_SPACE = f"""
DECLARE
    waiting text := current_setting('lock_timeout');
    old text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('{{schema}}', 0));
    IF EXISTS (SELECT FROM {{schema}}.datasets d WHERE d.space_id = space
               UNION ALL SELECT FROM {{schema}}.dataset_spaces o WHERE o.space_id = space
               UNION ALL SELECT FROM {{schema}}.embedding_spaces s WHERE s.id = space AND s.state = 'active') THEN
        RETURN false;
    END IF;
    {LOCK_VECTORS.strip()}
    FOR old IN SELECT format('{{schema}}.%I', c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = '{{schema}}.embeddings'::regclass AND c.relname ~ ('^embeddings_hnsw_[a-z]+_' || space || '$') LOOP
        EXECUTE 'DROP INDEX ' || old;
    END LOOP;
    EXECUTE format('ALTER TABLE {{schema}}.embeddings DROP CONSTRAINT IF EXISTS %I', 'embeddings_width_' || space);
    BEGIN
        EXECUTE format('DROP VIEW IF EXISTS {{schema}}.%I', '{{view}}_' || space);
    EXCEPTION WHEN dependent_objects_still_exist THEN -- views of a deleted dataset, or somebody's own: it stays, and is empty
        NULL;
    END;
    PERFORM {{schema}}.{{show}}();
    RETURN true;
END"""

# The search indexes while no row has a vector: later they are built without blocking writers, which no function can do.
INDEX_SPACE = """
DECLARE
    width integer;
    home text;
    one record;
BEGIN
    SELECT s.dimensions INTO STRICT width FROM {schema}.embedding_spaces s WHERE s.id = space;
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    LOCK TABLE {schema}.embeddings IN SHARE MODE;
    IF EXISTS (SELECT FROM {schema}.embeddings WHERE embedded_hash IS NOT NULL) THEN
        RETURN false;
    END IF;
    FOR one IN SELECT * FROM (VALUES {kinds}) AS k (kind, name) LOOP
        EXECUTE format(
            'CREATE INDEX IF NOT EXISTS %I ON {schema}.embeddings USING hnsw '
            '((embedding::%s.halfvec(%s)) %s.halfvec_cosine_ops) WITH (m = 16, ef_construction = 64) WHERE kind = %s AND space_id = %s',
            'embeddings_hnsw_' || one.name || '_' || space, home, width, home, one.kind, space
        );
    END LOOP;
    RETURN true;
END"""


@dataclass(frozen=True)
class Function:
    """A function of a trigger, or one that is called; `body` is its text as PostgreSQL keeps it."""

    name: str
    body: str
    arguments: str = ""
    returns: str = "trigger"
    options: str = ""
    """Further settings of it, as SQL has them."""

    @property
    def is_called(self) -> bool:
        """Return whether roles call it, for which they need a right."""
        return self.returns != "trigger"

    @property
    def signature(self) -> str:
        """Return what names it in SQL, without its schema."""
        return f"{self.name}({self.arguments})"


@dataclass(frozen=True)
class Trigger:
    """A trigger on one of our tables. `event` is what stands between its name and its table."""

    name: str
    table: str
    event: str
    function: str
    condition: str = ""
    each: str = "FOR EACH ROW"


def content_hash(embeddable: Embeddable) -> str:
    """Return SQL over alias `r` for the digest of the vector text, NULL when there is nothing to embed."""
    text = embeddable.text
    return f"CASE WHEN {text} !~ '{BLANK_PATTERN}' THEN sha256(convert_to({text}, 'UTF8')) END"


def functions(schema: str, *, words: bool = True) -> Iterator[Function]:
    """Return the functions of the triggers, and those that roles without the owner's rights call.

    Without `words` they are as a database needs them that has no table for them yet.
    """
    name = quoted(schema)
    yield Function("evervec_vector_changed", VECTOR_CHANGED.format(schema=name))
    yield Function("evervec_vector_deleted", VECTOR_DELETED.format(schema=name))
    yield Function("evervec_vector_restored", VECTOR_RESTORED.format(schema=name))
    yield Function("evervec_message_revised", MESSAGE_REVISED)
    for embeddable in EMBEDDABLES:
        digest = content_hash(embeddable).replace("r.", "NEW.")
        kind, key, dataset = embeddable.kind, embeddable.key, embeddable.dataset
        body = TRACK.format(
            schema=name,
            kind=kind,
            key=key,
            dataset=dataset,
            digest=digest,
            moved=" OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in _places(embeddable)),
            **kept_words(name, embeddable, made=words),
            its_space=f"NEW.{embeddable.space} IN (0, s.id)" if embeddable.space else "true",
        )
        yield Function(_tracker(embeddable), body)
    if words:
        yield Function(WORDS_FUNCTION, WORDS, "language text, body text", "tsvector", QUIET)
        yield Function("evervec_words_restored", WORDS_RESTORED.format(schema=name))
    yield Function("evervec_dataset_added", DATASET_ADDED.format(schema=name))
    yield Function("evervec_document_written", DOCUMENT_WRITTEN.format(schema=name))
    kinds = ", ".join(f"({embeddable.kind}, '{embeddable.name}')" for embeddable in EMBEDDABLES)
    yield Function(
        "evervec_add_space",
        ADD_SPACE.format(schema=name, show=views.SHOW, view=CHUNKS_VIEW),
        "space integer",
        "void",
    )
    yield Function(
        "evervec_drop_space",
        DROP_SPACE.format(schema=name, show=views.SHOW, view=CHUNKS_VIEW),
        "space integer",
        "boolean",
    )
    yield Function("evervec_index_space", INDEX_SPACE.format(schema=name, kinds=kinds), "space integer", "boolean")
    yield Function(views.SHOW, views.show_vectors(name), "", "void")


def declared(*, words: bool = True) -> Iterator[Trigger]:
    """Return the triggers that keep records and feed true, in the writer's own transaction."""
    changes = "BEFORE UPDATE OF embedding, content_hash, dataset_id"
    yield Trigger("evervec_vector_changed", "embeddings", changes, "evervec_vector_changed", VECTOR_IS_NEW)
    yield Trigger("evervec_vector_deleted", "embeddings", "AFTER DELETE", "evervec_vector_deleted")
    # depth 0: not what another trigger of ours inserts
    yield Trigger(
        "evervec_vector_restored", "embeddings", "BEFORE INSERT", "evervec_vector_restored", "pg_trigger_depth() = 0"
    )
    if words:
        yield Trigger(
            "evervec_words_restored", "row_words", "BEFORE INSERT", "evervec_words_restored", "pg_trigger_depth() = 0"
        )
    revised = "NEW.content IS DISTINCT FROM OLD.content"
    yield Trigger("evervec_message_revised", "messages", "BEFORE UPDATE OF content", "evervec_message_revised", revised)
    yield Trigger("evervec_dataset_added", "datasets", "BEFORE INSERT", "evervec_dataset_added", "NEW.space_id = 0")
    written = "AFTER INSERT OR UPDATE OF content, version"
    yield Trigger(
        "evervec_document_written",
        "documents",
        written,
        "evervec_document_written",
        "NEW.content IS NOT NULL OR NEW.recipe IS NOT NULL",
    )
    for embeddable in EMBEDDABLES:
        name = _tracker(embeddable)
        watched = (embeddable.key, *_places(embeddable), *embeddable.columns)
        changed = " OR ".join(f"NEW.{column} IS DISTINCT FROM OLD.{column}" for column in watched)
        yield Trigger(name, embeddable.table, "AFTER INSERT OR DELETE", name)
        yield Trigger(f"{name}_update", embeddable.table, f"AFTER UPDATE OF {', '.join(watched)}", name, changed)
        yield Trigger(f"{name}_truncate", embeddable.table, "AFTER TRUNCATE", name, each="")


def _tracker(embeddable: Embeddable) -> str:
    return f"evervec_track_{embeddable.table}"


def _places(embeddable: Embeddable) -> tuple[str, ...]:
    """Return the columns that say in which dataset, and for which space, a row is."""
    return (embeddable.dataset, *filter(None, (embeddable.space,)))


def install(schema: str, *, words: bool = True) -> Iterator[str]:
    """Return the statements that bring functions, triggers and the view up to date; they may run again at any time.

    Without `words` they fit a database between two migrations, which has no table for them yet.
    """
    name = quoted(schema)
    tables = ", ".join(sorted({f"{name}.{trigger.table}" for trigger in declared(words=words)}))
    # a writer has the table of its row before that of the records; no order of triggers fits all
    lock = LOCK_TABLES.format(tables=tables)
    yield f"DO $$ DECLARE waiting text := current_setting('lock_timeout'); BEGIN {lock.strip()} END $$"
    for function in functions(schema, words=words):
        made = f"{name}.{function.signature}"
        yield f"CREATE OR REPLACE FUNCTION {made} RETURNS {function.returns} {SAFE} {function.options} AS $${function.body}$$"
        # a trigger fires whoever writes; only to put one on another table, or to call a function, takes this right
        yield f"REVOKE ALL ON FUNCTION {made} FROM PUBLIC"
    for trigger in declared(words=words):
        condition = f"WHEN ({trigger.condition})" if trigger.condition else ""
        table = f"{name}.{trigger.table}"
        yield (
            f"CREATE OR REPLACE TRIGGER {trigger.name} {trigger.event} ON {table} {trigger.each} {condition} "
            f"EXECUTE FUNCTION {name}.{trigger.function}()"
        )
        yield f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger.name}"
    yield views.STATUS_VIEW.format(schema=name)
