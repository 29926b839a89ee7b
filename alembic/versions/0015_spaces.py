"""A space for each dataset: a record per row and space, in a partition a space; chunks of each space; documents to chunk."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
installs_functions = True

# The statements of writers, which run the functions of triggers, wait for this transaction: it holds the table that they write.
SPACES = """
DO $migration$
DECLARE
    home text;
    chosen integer;
    wide integer;
    part text;
    last bigint;
    granted record;
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    LOCK TABLE datasets, messages, topics, atoms, documents, chunks, embeddings IN ACCESS EXCLUSIVE MODE;
    -- there is always a default: no statement of a writer fails for want of one
    IF NOT EXISTS (SELECT FROM embedding_spaces WHERE state = 'active') THEN
        INSERT INTO embedding_spaces (provider, model, dimensions, state, activated_at)
        VALUES ('local', 'wordllama-l2-supercat-256', 256, 'active', now())
        ON CONFLICT (provider, model, dimensions, metric) DO UPDATE SET state = 'active', activated_at = now();
    END IF;
    SELECT id, dimensions INTO STRICT chosen, wide FROM embedding_spaces WHERE state = 'active';
    part := format('embeddings_%s', chosen);

    ALTER TABLE embedding_spaces DROP CONSTRAINT embedding_spaces_provider_model_dimensions_metric_key;
    ALTER TABLE embedding_spaces ADD CONSTRAINT embedding_spaces_identity
        UNIQUE (provider, model, dimensions, metric, template, chunk_tokens);
    EXECUTE format('ALTER TABLE datasets ADD COLUMN space_id integer NOT NULL DEFAULT %s', chosen);
    ALTER TABLE datasets ALTER COLUMN space_id DROP DEFAULT, ADD COLUMN provider_id uuid,
        ADD CONSTRAINT datasets_space_id_fkey FOREIGN KEY (space_id) REFERENCES embedding_spaces (id),
        ADD CONSTRAINT datasets_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES llm_providers (id) ON DELETE SET NULL;

    ALTER TABLE embed_work DROP CONSTRAINT embed_work_vector_id_fkey;
    ALTER TABLE embeddings DROP CONSTRAINT embeddings_embedded_whole_or_not, DROP CONSTRAINT IF EXISTS embeddings_width;
    UPDATE embeddings SET space_id = chosen WHERE space_id IS DISTINCT FROM chosen;
    SELECT coalesce(max(vector_id), 0) INTO last FROM embeddings;
    SELECT greatest(last, CASE WHEN s.is_called THEN s.last_value ELSE 0 END) INTO last FROM embeddings_vector_id_seq s;
    ALTER TABLE embeddings
        ALTER COLUMN space_id SET NOT NULL, ALTER COLUMN vector_id DROP IDENTITY,
        DROP CONSTRAINT embeddings_pkey, DROP CONSTRAINT embeddings_kind_row_id_key;
    -- they come back on the table of all spaces, as soon as the migrations are over
    DROP TRIGGER IF EXISTS evervec_vector_changed ON embeddings;
    DROP TRIGGER IF EXISTS evervec_vector_deleted ON embeddings;
    DROP TRIGGER IF EXISTS evervec_vector_restored ON embeddings;
    EXECUTE format('ALTER TABLE embeddings RENAME TO %I', part);
    EXECUTE format('ALTER INDEX embeddings_pending_idx RENAME TO %I', part || '_pending_idx');
    EXECUTE format('ALTER INDEX embeddings_changed_idx RENAME TO %I', part || '_changed_idx');
    EXECUTE format('ALTER INDEX embeddings_same_text_idx RENAME TO %I', part || '_same_text_idx');
    EXECUTE format('ALTER INDEX embeddings_failed_idx RENAME TO %I', part || '_failed_idx');
    EXECUTE format('ALTER INDEX embeddings_by_id RENAME TO %I', part || '_pkey');
    EXECUTE format('ALTER INDEX embeddings_by_row RENAME TO %I', part || '_kind_row_id_space_id_key');
    EXECUTE format('ALTER TABLE %1$I ADD CONSTRAINT %2$I PRIMARY KEY USING INDEX %2$I', part, part || '_pkey');
    EXECUTE format('ALTER TABLE %1$I ADD CONSTRAINT %2$I UNIQUE USING INDEX %2$I', part, part || '_kind_row_id_space_id_key');
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT embeddings_embedded_whole_or_not
        CHECK (num_nulls(embedding, embedded_hash, embedded_at) IN (0, 3))', part);

    EXECUTE format('CREATE TABLE embeddings (LIKE %I INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS)
        PARTITION BY LIST (space_id)', part);
    ALTER TABLE embeddings ALTER COLUMN vector_id ADD GENERATED ALWAYS AS IDENTITY;
    PERFORM setval('embeddings_vector_id_seq', last + 1, false);
    ALTER TABLE embeddings ADD CONSTRAINT embeddings_pkey PRIMARY KEY (vector_id, space_id),
        ADD CONSTRAINT embeddings_kind_row_id_space_id_key UNIQUE (kind, row_id, space_id);
    CREATE INDEX embeddings_pending_idx ON embeddings (dataset_id, pending_id) INCLUDE (kind) WHERE pending_id IS NOT NULL;
    CREATE INDEX embeddings_changed_idx ON embeddings (dataset_id, changed_xid, vector_id) WHERE embedding IS NOT NULL;
    CREATE INDEX embeddings_same_text_idx ON embeddings (embedded_hash) WHERE embedded_hash IS NOT NULL;
    CREATE INDEX embeddings_failed_idx ON embeddings (dataset_id, vector_id) WHERE failed_hash = content_hash;
    FOR granted IN EXECUTE format('SELECT a.grantee, string_agg(a.privilege_type, '', '') AS privileges
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE c.oid = %L::regclass AND a.grantee <> c.relowner
        AND a.privilege_type IN (''SELECT'', ''INSERT'', ''UPDATE'', ''DELETE'') GROUP BY a.grantee', part) LOOP
        EXECUTE format('GRANT %s ON embeddings TO %s', granted.privileges,
            CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END);
    END LOOP;
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (space_id = %s AND %s.vector_dims(embedding) = %s)',
        part, part || '_width', chosen, home, wide);
    EXECUTE format('ALTER TABLE embeddings ATTACH PARTITION %I FOR VALUES IN (%s)', part, chosen);
    -- a recipe named the space's template and model, too; now each space has chunks of its own
    UPDATE documents d SET recipe = 'chunking 1' FROM embedding_spaces s WHERE s.id = chosen AND d.recipe = left(encode(sha256(
        '1'::bytea || decode('00', 'hex') || convert_to(s.template, 'UTF8') || decode('00', 'hex')
        || convert_to(least(s.chunk_tokens, coalesce(s.text_tokens, s.chunk_tokens))::text, 'UTF8') || decode('00', 'hex')
        || convert_to(s.provider || '/' || s.model, 'UTF8')), 'hex'), 16);
    EXECUTE format('ALTER TABLE chunks ADD COLUMN space_id integer NOT NULL DEFAULT %s', chosen);
    ALTER TABLE chunks ALTER COLUMN space_id SET DEFAULT 0;
    UPDATE chunks c SET space_id = 0 FROM documents d WHERE d.id = c.document_id AND d.recipe IS NULL;
    ALTER TABLE chunks DROP CONSTRAINT chunks_document_id_ordinal_key;
    ALTER TABLE chunks ADD CONSTRAINT chunks_document_id_space_id_ordinal_key
        UNIQUE (document_id, space_id, ordinal) DEFERRABLE INITIALLY DEFERRED;
END $migration$
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
    CONSTRAINT dataset_spaces_pkey PRIMARY KEY (dataset_id, space_id),
    CONSTRAINT dataset_spaces_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES datasets (id) ON DELETE CASCADE,
    CONSTRAINT dataset_spaces_space_id_fkey FOREIGN KEY (space_id) REFERENCES embedding_spaces (id),
    CONSTRAINT dataset_spaces_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES llm_providers (id) ON DELETE SET NULL,
    CONSTRAINT dataset_spaces_state_known CHECK (state IN ('next', 'previous', 'dropped'))
)
"""

# whoever holds one reports it again within seconds
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
FORGET = """
DO $$
DECLARE
    ours regprocedure;
BEGIN
    FOR ours IN SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
        AND (proname LIKE 'evervec\\_%' OR (proname = 'search' AND prosrc LIKE '%evervec_show_vectors()%')) LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', ours);
    END LOOP;
END $$
"""

# Back to one space, the default's: what is embedded in another one has to be embedded again.
ONE_SPACE = """
DO $migration$
DECLARE
    home text;
    chosen integer;
    wide integer;
    part text;
    last bigint;
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    LOCK TABLE datasets, messages, topics, atoms, documents, chunks, embeddings IN ACCESS EXCLUSIVE MODE;
    SELECT id, dimensions INTO STRICT chosen, wide FROM embedding_spaces WHERE state = 'active';
    part := format('embeddings_%s', chosen);
    DELETE FROM chunks WHERE space_id NOT IN (0, chosen);
    DELETE FROM embed_work w USING embeddings e WHERE e.vector_id = w.vector_id AND e.space_id <> chosen;
    SELECT last_value INTO last FROM embeddings_vector_id_seq;
    EXECUTE format('ALTER TABLE embeddings DETACH PARTITION %I', part);
    EXECUTE 'DROP VIEW IF EXISTS embedding_status CASCADE';
    EXECUTE 'DROP VIEW IF EXISTS attached_chunks CASCADE';
    EXECUTE format('DROP VIEW IF EXISTS attached_chunks_%s CASCADE', chosen);
    DROP TABLE embeddings CASCADE;
    EXECUTE format('ALTER TABLE %I RENAME TO embeddings', part);
    EXECUTE format('ALTER TABLE embeddings DROP CONSTRAINT %I, DROP CONSTRAINT embeddings_embedded_whole_or_not', part || '_width');
    EXECUTE format('ALTER TABLE embeddings DROP CONSTRAINT %I, DROP CONSTRAINT %I', part || '_pkey', part || '_kind_row_id_space_id_key');
    EXECUTE format('ALTER INDEX %I RENAME TO embeddings_pending_idx', part || '_pending_idx');
    EXECUTE format('ALTER INDEX %I RENAME TO embeddings_changed_idx', part || '_changed_idx');
    EXECUTE format('ALTER INDEX %I RENAME TO embeddings_same_text_idx', part || '_same_text_idx');
    EXECUTE format('ALTER INDEX %I RENAME TO embeddings_failed_idx', part || '_failed_idx');
    ALTER TABLE embeddings ALTER COLUMN space_id DROP NOT NULL, ALTER COLUMN vector_id ADD GENERATED ALWAYS AS IDENTITY,
        ADD CONSTRAINT embeddings_pkey PRIMARY KEY (vector_id) WITH (fillfactor = 50),
        ADD CONSTRAINT embeddings_kind_row_id_key UNIQUE (kind, row_id) WITH (fillfactor = 50);
    PERFORM setval('embeddings_vector_id_seq', last);
    UPDATE embeddings SET space_id = NULL WHERE embedding IS NULL;
    ALTER TABLE embeddings ADD CONSTRAINT embeddings_embedded_whole_or_not
        CHECK (num_nulls(embedding, embedded_hash, space_id, embedded_at) IN (0, 4));
    EXECUTE format('ALTER TABLE embeddings ADD CONSTRAINT embeddings_width CHECK (%s.vector_dims(embedding) = %s AND space_id = %s)',
        home, wide, chosen);
    DELETE FROM embed_work w WHERE NOT EXISTS (SELECT FROM embeddings e WHERE e.vector_id = w.vector_id);
    ALTER TABLE embed_work ADD CONSTRAINT embed_work_vector_id_fkey FOREIGN KEY (vector_id)
        REFERENCES embeddings (vector_id) ON DELETE CASCADE;
    ALTER TABLE datasets DROP COLUMN space_id, DROP COLUMN provider_id;
    DELETE FROM embedding_spaces s WHERE s.state <> 'active' AND EXISTS (
        SELECT FROM embedding_spaces o WHERE o.id <> s.id AND (o.state = 'active' OR o.id < s.id)
        AND (o.provider, o.model, o.dimensions, o.metric) = (s.provider, s.model, s.dimensions, s.metric))
        AND NOT EXISTS (SELECT FROM llm_providers p WHERE p.space_id = s.id);
    ALTER TABLE embedding_spaces DROP CONSTRAINT embedding_spaces_identity;
    ALTER TABLE embedding_spaces ADD CONSTRAINT embedding_spaces_provider_model_dimensions_metric_key
        UNIQUE (provider, model, dimensions, metric);
    ALTER TABLE chunks DROP CONSTRAINT chunks_document_id_space_id_ordinal_key, DROP COLUMN space_id;
    ALTER TABLE chunks ADD CONSTRAINT chunks_document_id_ordinal_key
        UNIQUE (document_id, ordinal) DEFERRABLE INITIALLY DEFERRED;
END $migration$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in (("embeddings_by_id", "vector_id, space_id"), ("embeddings_by_row", "kind, row_id, space_id")):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON embeddings ({columns}) WITH (fillfactor = 50)")
    op.get_bind().exec_driver_sql(SPACES)
    op.execute(DATASET_SPACES)
    op.execute(MIRRORS_OF_SPACES)
    op.create_index(
        "dataset_spaces_one_of_a_state", "dataset_spaces", ["dataset_id", "state"], unique=True,
        postgresql_where=sa.text("state <> 'dropped'"),
    )
    op.create_table(
        "chunk_work",
        sa.Column("space_id", sa.Integer, nullable=False),
        sa.Column("document_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("space_id", "document_id", name="chunk_work_pkey"),
        sa.ForeignKeyConstraint(["space_id"], ["embedding_spaces.id"], name="chunk_work_space_id_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name="chunk_work_document_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("chunk_work_document_id_idx", "chunk_work", ["document_id"])


def downgrade() -> None:
    op.execute(FORGET)
    op.drop_table("chunk_work")
    op.drop_table("dataset_spaces")
    op.execute(MIRRORS_OF_DATASETS)
    op.get_bind().exec_driver_sql(ONE_SPACE)
