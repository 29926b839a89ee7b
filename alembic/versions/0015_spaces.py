"""A space for each dataset: a record per row and space, chunks of each space, and what is built beside what is searched."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
installs_functions = True

# Writers take these tables in several orders, and readers a view before its tables. So each wait is short: nobody stands
# behind it for long, and no deadlock is looked for.
LOCK_TABLES = """
DO $$
DECLARE
    waiting text := current_setting('lock_timeout');
    made text := (SELECT string_agg(format(', %I', relname), '') FROM pg_class
                  WHERE relnamespace = current_schema()::regnamespace AND relname IN ('embedding_status', 'attached_chunks'));
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '100ms', true);
            EXECUTE format('LOCK TABLE datasets, messages, topics, atoms, documents, chunks, embeddings, embedding_spaces, '
                           'llm_providers, mirrors%s IN ACCESS EXCLUSIVE MODE', made);
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 300 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', waiting, true);
END $$
"""

# Searches read these until `evervec migrate` has built those of the space, which takes no writer's time, and drops them.
KEEP_HNSW = """
DO $$
DECLARE
    old record;
    chosen integer := (SELECT id FROM embedding_spaces WHERE state = 'active');
BEGIN
    FOR old IN SELECT c.relname AS name, substring(c.relname FROM '^embeddings_hnsw_([a-z]+)_[0-9]+$') AS kind,
                      i.indisvalid AND c.relname ~ ('^embeddings_hnsw_[a-z]+_' || chosen || '$') AS used
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = 'embeddings'::regclass AND c.relname LIKE 'embeddings\\_hnsw\\_%' LOOP
        IF old.used THEN
            EXECUTE format('ALTER INDEX %I RENAME TO %I', old.name, 'embeddings_hnsw_before_' || old.kind);
        ELSE
            EXECUTE format('DROP INDEX %I', old.name);
        END IF;
    END LOOP;
END $$
"""
FORGET_HNSW = """
DO $$
DECLARE
    old text;
BEGIN
    FOR old IN SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = 'embeddings'::regclass AND c.relname LIKE 'embeddings\\_hnsw\\_%' LOOP
        EXECUTE format('DROP INDEX %I', old);
    END LOOP;
END $$
"""

# 0 is the space of datasets before there is any
SPACES = """
DO $$
DECLARE
    home text;
    chosen integer := (SELECT id FROM embedding_spaces WHERE state = 'active');
    wide integer := (SELECT dimensions FROM embedding_spaces WHERE state = 'active');
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    EXECUTE format('ALTER TABLE datasets ADD COLUMN space_id integer NOT NULL DEFAULT %s', coalesce(chosen, 0));
    ALTER TABLE datasets ALTER COLUMN space_id SET DEFAULT 0, ADD COLUMN provider_id uuid,
        ADD CONSTRAINT datasets_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES llm_providers (id) ON DELETE SET NULL;
    ALTER TABLE embedding_spaces DROP CONSTRAINT embedding_spaces_provider_model_dimensions_metric_key;
    ALTER TABLE embedding_spaces ADD CONSTRAINT embedding_spaces_identity
        UNIQUE (provider, model, dimensions, metric, template, chunk_tokens);

    ALTER TABLE embeddings DROP CONSTRAINT embeddings_embedded_whole_or_not, DROP CONSTRAINT IF EXISTS embeddings_width,
        DROP CONSTRAINT embeddings_kind_row_id_key;
    UPDATE embeddings SET space_id = coalesce(chosen, 0) WHERE space_id IS NULL;
    ALTER TABLE embeddings ALTER COLUMN space_id SET DEFAULT 0, ALTER COLUMN space_id SET NOT NULL,
        ADD CONSTRAINT embeddings_kind_row_id_space_id_key UNIQUE USING INDEX embeddings_kind_row_id_space_id_key,
        ADD CONSTRAINT embeddings_embedded_whole_or_not CHECK (num_nulls(embedding, embedded_hash, embedded_at) IN (0, 3)) NOT VALID;
    DROP INDEX embeddings_pending_idx;
    DROP INDEX embeddings_changed_idx;
    ALTER INDEX embeddings_pending_of_space_idx RENAME TO embeddings_pending_idx;
    ALTER INDEX embeddings_changed_of_space_idx RENAME TO embeddings_changed_idx;
    IF chosen IS NOT NULL THEN
        EXECUTE format('ALTER TABLE embeddings ADD CONSTRAINT %I CHECK (space_id <> %s OR %s.vector_dims(embedding) = %s) NOT VALID',
            'embeddings_width_' || chosen, chosen, home, wide);
    END IF;

    -- a recipe named the space's template and model, too; now each space has chunks of its own
    UPDATE documents d SET recipe = 'chunking 1' FROM embedding_spaces s WHERE s.id = chosen AND d.recipe = left(encode(sha256(
        '1'::bytea || decode('00', 'hex') || convert_to(s.template, 'UTF8') || decode('00', 'hex')
        || convert_to(least(s.chunk_tokens, coalesce(s.text_tokens, s.chunk_tokens))::text, 'UTF8') || decode('00', 'hex')
        || convert_to(s.provider || '/' || s.model, 'UTF8')), 'hex'), 16);
    EXECUTE format('ALTER TABLE chunks ADD COLUMN space_id integer NOT NULL DEFAULT %s', coalesce(chosen, 0));
    ALTER TABLE chunks ALTER COLUMN space_id SET DEFAULT 0;
    UPDATE chunks c SET space_id = 0 FROM documents d WHERE d.id = c.document_id AND d.recipe IS NULL AND c.space_id <> 0;
    ALTER TABLE chunks DROP CONSTRAINT chunks_document_id_ordinal_key;
    ALTER TABLE chunks ADD CONSTRAINT chunks_document_id_space_id_ordinal_key
        UNIQUE (document_id, space_id, ordinal) DEFERRABLE INITIALLY DEFERRED;
END $$
"""

DATASET_SPACES = """
CREATE TABLE dataset_spaces (
    dataset_id uuid NOT NULL,
    space_id integer NOT NULL,
    provider_id uuid,
    state text NOT NULL,
    automatic boolean NOT NULL DEFAULT false,
    created_at timestamp with time zone NOT NULL DEFAULT now(),
    seen_xid xid8,
    taken_in_at timestamp with time zone,
    indexed_at timestamp with time zone,
    batch_hours double precision,
    marked_at timestamp with time zone,
    CONSTRAINT dataset_spaces_pkey PRIMARY KEY (dataset_id, space_id),
    CONSTRAINT dataset_spaces_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES datasets (id) ON DELETE CASCADE,
    CONSTRAINT dataset_spaces_space_id_fkey FOREIGN KEY (space_id) REFERENCES embedding_spaces (id),
    CONSTRAINT dataset_spaces_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES llm_providers (id) ON DELETE SET NULL,
    CONSTRAINT dataset_spaces_state_known CHECK (state IN ('next', 'previous', 'dropped'))
)
"""

# whoever holds a mirror reports it again within seconds
MIRRORS_OF_SPACES = """
DO $$ BEGIN
    DELETE FROM mirrors;
    ALTER TABLE mirrors ADD COLUMN space_id integer NOT NULL, DROP CONSTRAINT mirrors_pkey;
    ALTER TABLE mirrors ADD CONSTRAINT mirrors_pkey PRIMARY KEY (holder, dataset_id, space_id);
END $$
"""
MIRRORS_OF_DATASETS = """
DO $$ BEGIN
    DELETE FROM mirrors;
    ALTER TABLE mirrors DROP CONSTRAINT mirrors_pkey, DROP COLUMN space_id;
    ALTER TABLE mirrors ADD CONSTRAINT mirrors_pkey PRIMARY KEY (holder, dataset_id);
END $$
"""

# The functions of the triggers come back with the version that they belong to. Those of attached tables stay.
FORGET_FUNCTIONS = """
DO $$
DECLARE
    ours regprocedure;
BEGIN
    FOR ours IN SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND (
        proname ~ '^evervec_(vector|message|track|dataset|document|add|drop|index|show)_'
        OR (proname = 'search' AND prosrc LIKE '%evervec_show_vectors()%')) LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', ours);
    END LOOP;
END $$
"""

# The views of that version, in place of those that name a space: whatever reads them stays, with its rights.
VIEWS_BEFORE = """
DO $$
DECLARE
    home text;
    one record;
    wide text := coalesce((SELECT format('(%s)', dimensions) FROM embedding_spaces WHERE state = 'active'), '');
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    CREATE OR REPLACE VIEW embedding_status AS
    SELECT e.vector_id, e.kind, e.row_id, e.dataset_id,
           CASE WHEN e.content_hash IS NULL THEN 'EMPTY'
                WHEN e.embedded_hash = e.content_hash THEN 'READY'
                WHEN e.failed_hash = e.content_hash THEN 'FAILED'
                ELSE 'PENDING' END AS embedding_status,
           CASE WHEN e.embedded_hash IS DISTINCT FROM e.content_hash THEN w.last_error END AS error_message,
           w.attempts, w.not_before, w.lease_until, e.embedded_at
    FROM embeddings e
    LEFT JOIN embed_work w ON w.vector_id = e.vector_id AND w.content_hash = e.content_hash;
    EXECUTE format($made$
        CREATE OR REPLACE VIEW attached_chunks AS
        SELECT r.dataset_id, coalesce(d.key, r.key) AS key, c.ordinal AS chunk, c.content AS text, d.title, r.embedding,
               CASE WHEN r.reason IS NOT NULL THEN 'FAILED'
                    WHEN r.content_hash IS NULL THEN 'EMPTY'
                    WHEN r.embedded_hash = r.content_hash THEN 'READY'
                    WHEN r.failed_hash = r.content_hash THEN 'FAILED'
                    ELSE 'PENDING' END AS embedding_status,
               CASE WHEN r.embedded_hash IS DISTINCT FROM r.content_hash THEN w.last_error ELSE r.reason END AS error_message
        FROM (
            SELECT e.kind, e.vector_id, e.row_id, e.dataset_id, e.content_hash, e.embedded_hash, e.failed_hash,
                   (e.embedding::%1$s.halfvec%2$s)::%1$s.halfvec AS embedding, NULL::jsonb AS key, NULL::text AS reason
            FROM embeddings e
            UNION ALL
            SELECT 4::smallint, NULL::bigint, NULL::bigint, coalesce(f.dataset_id, f.source_id), NULL::bytea, NULL::bytea,
                   NULL::bytea, NULL::%1$s.halfvec, f.key, f.reason
            FROM attached_failures f
        ) r
        LEFT JOIN chunks c ON c.id = r.row_id
        LEFT JOIN documents d ON d.id = c.document_id
        LEFT JOIN embed_work w ON w.vector_id = r.vector_id AND w.content_hash = r.content_hash
        WHERE r.kind = 4 AND (d.key IS NOT NULL OR r.key IS NOT NULL)
    $made$, home, wide);
    FOR one IN SELECT DISTINCT v.oid::regclass AS name, pg_get_viewdef(v.oid) AS query
        FROM pg_class s JOIN pg_depend n ON n.refobjid = s.oid AND n.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite w ON w.oid = n.objid JOIN pg_class v ON v.oid = w.ev_class
        WHERE s.relnamespace = current_schema()::regnamespace AND s.relname ~ '^attached_chunks_[0-9]+$' AND v.oid <> s.oid LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', one.name,
                       regexp_replace(one.query, '\\mattached_chunks_[0-9]+\\M', 'attached_chunks', 'g'));
    END LOOP;
    FOR one IN SELECT oid::regclass AS name FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v' AND relname ~ '^attached_chunks_[0-9]+$' LOOP
        EXECUTE format('DROP VIEW %s', one.name);
    END LOOP;
END $$
"""

# Back to one space, the default's. Of each dataset what is searched stays: its texts, and in the default space its vectors;
# the others have to be embedded again.
ONE_SPACE = """
DO $$
DECLARE
    home text;
    one record;
    chosen integer := coalesce((SELECT id FROM embedding_spaces WHERE state = 'active'), 0);
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    -- the text of a document that waits for its chunks in the space that is searched is in those for another one
    UPDATE documents d SET content = (
        SELECT string_agg(c.content, '' ORDER BY c.ordinal) FROM chunks c WHERE c.document_id = d.id AND c.space_id = (
            SELECT o.space_id FROM chunks o WHERE o.document_id = d.id ORDER BY
                EXISTS (SELECT FROM chunk_work w WHERE w.document_id = d.id AND w.space_id = o.space_id), o.space_id = s.space_id DESC,
                EXISTS (SELECT FROM dataset_spaces x WHERE x.dataset_id = s.id AND x.space_id = o.space_id AND x.state = 'dropped')
            LIMIT 1))
    FROM datasets s WHERE s.id = d.dataset_id AND d.content IS NULL
      AND EXISTS (SELECT FROM chunk_work w WHERE w.document_id = d.id AND w.space_id = s.space_id);
    DELETE FROM chunks c USING datasets d WHERE d.id = c.dataset_id AND c.space_id NOT IN (0, d.space_id);
    DELETE FROM embeddings e WHERE e.space_id IS DISTINCT FROM
        coalesce((SELECT d.space_id FROM datasets d WHERE d.id = e.dataset_id), chosen);
    FOR one IN SELECT conname FROM pg_constraint WHERE conrelid = 'embeddings'::regclass AND conname LIKE 'embeddings\\_width\\_%' LOOP
        EXECUTE format('ALTER TABLE embeddings DROP CONSTRAINT %I', one.conname);
    END LOOP;
    ALTER TABLE embeddings DROP CONSTRAINT embeddings_kind_row_id_space_id_key, DROP CONSTRAINT embeddings_embedded_whole_or_not,
        ALTER COLUMN space_id DROP NOT NULL, ALTER COLUMN space_id DROP DEFAULT,
        ADD CONSTRAINT embeddings_kind_row_id_key UNIQUE (kind, row_id) WITH (fillfactor = 50);
    UPDATE embeddings SET embedding = NULL, embedded_hash = NULL, embedded_at = NULL WHERE space_id <> chosen;
    UPDATE embeddings SET space_id = NULL WHERE embedding IS NULL AND space_id IS NOT NULL;
    ALTER TABLE embeddings ADD CONSTRAINT embeddings_embedded_whole_or_not
        CHECK (num_nulls(embedding, embedded_hash, space_id, embedded_at) IN (0, 4));
    FOR one IN SELECT id, dimensions FROM embedding_spaces WHERE id = chosen LOOP
        EXECUTE format('ALTER TABLE embeddings ADD CONSTRAINT embeddings_width CHECK (%s.vector_dims(embedding) = %s AND space_id = %s)',
            home, one.dimensions, one.id);
    END LOOP;
    DROP INDEX embeddings_pending_idx;
    DROP INDEX embeddings_changed_idx;
    CREATE INDEX embeddings_pending_idx ON embeddings (dataset_id, pending_id) INCLUDE (kind) WHERE pending_id IS NOT NULL;
    CREATE INDEX embeddings_changed_idx ON embeddings (dataset_id, changed_xid, vector_id) WHERE embedding IS NOT NULL;
    ALTER TABLE datasets DROP COLUMN space_id, DROP COLUMN provider_id;
    -- of spaces that a template or a size alone tells apart the default stays, or the oldest
    UPDATE llm_providers p SET space_id = k.id FROM embedding_spaces s, LATERAL (
        SELECT o.id FROM embedding_spaces o
        WHERE (o.provider, o.model, o.dimensions, o.metric) = (s.provider, s.model, s.dimensions, s.metric)
        ORDER BY o.state = 'active' DESC, o.id LIMIT 1) k WHERE s.id = p.space_id AND k.id <> s.id;
    UPDATE batch_jobs SET space_id = NULL WHERE space_id NOT IN (SELECT space_id FROM llm_providers) AND space_id <> chosen;
    DELETE FROM dataset_spaces;
    DELETE FROM embedding_spaces s WHERE s.id <> chosen AND NOT EXISTS (SELECT FROM llm_providers p WHERE p.space_id = s.id);
    ALTER TABLE embedding_spaces DROP CONSTRAINT embedding_spaces_identity;
    ALTER TABLE embedding_spaces ADD CONSTRAINT embedding_spaces_provider_model_dimensions_metric_key
        UNIQUE (provider, model, dimensions, metric);
    ALTER TABLE chunks DROP CONSTRAINT chunks_document_id_space_id_ordinal_key, DROP COLUMN space_id;
    ALTER TABLE chunks ADD CONSTRAINT chunks_document_id_ordinal_key
        UNIQUE (document_id, ordinal) DEFERRABLE INITIALLY DEFERRED;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _index("embeddings_kind_row_id_space_id_key", "(kind, row_id, space_id) WITH (fillfactor = 50)", unique=True)
        _index(
            "embeddings_pending_of_space_idx",
            "(dataset_id, space_id, pending_id) INCLUDE (kind) WHERE pending_id IS NOT NULL",
        )
        _index(
            "embeddings_changed_of_space_idx",
            "(dataset_id, space_id, changed_xid, vector_id) WHERE embedding IS NOT NULL",
        )
    op.get_bind().exec_driver_sql(LOCK_TABLES)
    op.get_bind().exec_driver_sql(KEEP_HNSW)
    op.execute("DROP FUNCTION IF EXISTS evervec_accept_space(integer)")
    op.get_bind().exec_driver_sql(SPACES)
    op.execute(DATASET_SPACES)
    op.execute(MIRRORS_OF_SPACES)
    op.create_index(
        "dataset_spaces_one_of_a_state",
        "dataset_spaces",
        ["dataset_id", "state"],
        unique=True,
        postgresql_where=sa.text("state <> 'dropped'"),
    )
    op.create_table(
        "chunk_work",
        sa.Column("space_id", sa.Integer, nullable=False),
        sa.Column("document_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "document_id", name="chunk_work_pkey"),
        sa.ForeignKeyConstraint(
            ["space_id"], ["embedding_spaces.id"], name="chunk_work_space_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name="chunk_work_document_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("chunk_work_document_id_idx", "chunk_work", ["document_id"])


def downgrade() -> None:
    for statement in (FORGET_FUNCTIONS, VIEWS_BEFORE, FORGET_HNSW, ONE_SPACE):
        op.get_bind().exec_driver_sql(statement)
    op.drop_table("chunk_work")
    op.drop_table("dataset_spaces")
    op.execute(MIRRORS_OF_DATASETS)


def _index(name: str, what: str, *, unique: bool = False) -> None:
    """Build an index while others write; an invalid leftover of an interrupted run goes first."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE {'UNIQUE ' if unique else ''}INDEX CONCURRENTLY {name} ON embeddings {what}")
