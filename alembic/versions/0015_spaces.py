"""A space for each dataset: a record per row and space, chunks of each space, and what is built beside what is searched."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
installs_functions = True

# Vectors are searched exactly, or by mirrors, until `evervec migrate` has built these indexes again, one for each space.
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
    started_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
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

# functions of triggers, and what they are called by, come back with the version that they belong to
FORGET_FUNCTIONS = """
DO $$
DECLARE
    ours regprocedure;
    shown text;
BEGIN
    FOR ours IN SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
        AND (proname LIKE 'evervec\\_%' OR (proname = 'search' AND prosrc LIKE '%evervec_show_vectors()%')) LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', ours);
    END LOOP;
    FOR shown IN SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
        AND relname ~ '^(embedding_status|attached_chunks(_[0-9]+)?)$' LOOP
        EXECUTE format('DROP VIEW %I CASCADE', shown);
    END LOOP;
END $$
"""

# Back to one space, the default's: what is searched in another one has to be embedded again.
ONE_SPACE = """
DO $$
DECLARE
    home text;
    one record;
    chosen integer := coalesce((SELECT id FROM embedding_spaces WHERE state = 'active'), 0);
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    DELETE FROM chunks WHERE space_id NOT IN (0, chosen);
    DELETE FROM embeddings WHERE space_id <> chosen;
    FOR one IN SELECT conname FROM pg_constraint WHERE conrelid = 'embeddings'::regclass AND conname LIKE 'embeddings\\_width\\_%' LOOP
        EXECUTE format('ALTER TABLE embeddings DROP CONSTRAINT %I', one.conname);
    END LOOP;
    ALTER TABLE embeddings DROP CONSTRAINT embeddings_kind_row_id_space_id_key, DROP CONSTRAINT embeddings_embedded_whole_or_not,
        ALTER COLUMN space_id DROP NOT NULL, ALTER COLUMN space_id DROP DEFAULT,
        ADD CONSTRAINT embeddings_kind_row_id_key UNIQUE (kind, row_id) WITH (fillfactor = 50);
    UPDATE embeddings SET space_id = NULL WHERE embedding IS NULL;
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
    op.execute("LOCK TABLE datasets, messages, topics, atoms, documents, chunks, embeddings IN ACCESS EXCLUSIVE MODE")
    op.execute(FORGET_HNSW)
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
    op.execute(FORGET_FUNCTIONS)
    op.execute(FORGET_HNSW)
    op.drop_table("chunk_work")
    op.drop_table("dataset_spaces")
    op.execute(MIRRORS_OF_DATASETS)
    op.get_bind().exec_driver_sql(ONE_SPACE)


def _index(name: str, what: str, *, unique: bool = False) -> None:
    """Build an index while others write; an invalid leftover of an interrupted run goes first."""
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE {'UNIQUE ' if unique else ''}INDEX CONCURRENTLY {name} ON embeddings {what}")
