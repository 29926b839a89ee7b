SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', 'public', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;
CREATE FUNCTION public.evervec_message_revised() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.revision := OLD.revision + 1;
    RETURN NEW;
END $$;
CREATE FUNCTION public.evervec_track_atoms() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM embeddings WHERE kind = 3;
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.id IS DISTINCT FROM OLD.id) THEN
        DELETE FROM embeddings WHERE kind = 3 AND row_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO embeddings (kind, row_id, dataset_id, content_hash)
        VALUES (3, NEW.id, NEW.dataset_id, CASE WHEN NEW.content !~ '^[\u0009-\u000D\u001C-\u0020\u0085-\u0085\u00A0-\u00A0\u1680-\u1680\u2000-\u200D\u2028-\u2029\u202F-\u202F\u205F-\u2060\u3000-\u3000\uFEFF-\uFEFF]*$' THEN sha256(convert_to(NEW.content, 'UTF8')) END)
        ON CONFLICT (kind, row_id) DO UPDATE
        SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        WHERE embeddings.dataset_id <> EXCLUDED.dataset_id
           OR embeddings.content_hash IS DISTINCT FROM EXCLUDED.content_hash;
    END IF;
    RETURN NULL;
END $_$;
CREATE FUNCTION public.evervec_track_chunks() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM embeddings WHERE kind = 4;
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.id IS DISTINCT FROM OLD.id) THEN
        DELETE FROM embeddings WHERE kind = 4 AND row_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO embeddings (kind, row_id, dataset_id, content_hash)
        VALUES (4, NEW.id, NEW.dataset_id, CASE WHEN NEW.vector_text !~ '^[\u0009-\u000D\u001C-\u0020\u0085-\u0085\u00A0-\u00A0\u1680-\u1680\u2000-\u200D\u2028-\u2029\u202F-\u202F\u205F-\u2060\u3000-\u3000\uFEFF-\uFEFF]*$' THEN sha256(convert_to(NEW.vector_text, 'UTF8')) END)
        ON CONFLICT (kind, row_id) DO UPDATE
        SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        WHERE embeddings.dataset_id <> EXCLUDED.dataset_id
           OR embeddings.content_hash IS DISTINCT FROM EXCLUDED.content_hash;
    END IF;
    RETURN NULL;
END $_$;
CREATE FUNCTION public.evervec_track_messages() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM embeddings WHERE kind = 1;
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.id IS DISTINCT FROM OLD.id) THEN
        DELETE FROM embeddings WHERE kind = 1 AND row_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO embeddings (kind, row_id, dataset_id, content_hash)
        VALUES (1, NEW.id, NEW.dataset_id, CASE WHEN NEW.content !~ '^[\u0009-\u000D\u001C-\u0020\u0085-\u0085\u00A0-\u00A0\u1680-\u1680\u2000-\u200D\u2028-\u2029\u202F-\u202F\u205F-\u2060\u3000-\u3000\uFEFF-\uFEFF]*$' THEN sha256(convert_to(NEW.content, 'UTF8')) END)
        ON CONFLICT (kind, row_id) DO UPDATE
        SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        WHERE embeddings.dataset_id <> EXCLUDED.dataset_id
           OR embeddings.content_hash IS DISTINCT FROM EXCLUDED.content_hash;
    END IF;
    RETURN NULL;
END $_$;
CREATE FUNCTION public.evervec_track_topics() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM embeddings WHERE kind = 2;
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.id IS DISTINCT FROM OLD.id) THEN
        DELETE FROM embeddings WHERE kind = 2 AND row_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO embeddings (kind, row_id, dataset_id, content_hash)
        VALUES (2, NEW.id, NEW.dataset_id, CASE WHEN concat_ws(E'\n', NEW.name, nullif(NEW.description, '')) !~ '^[\u0009-\u000D\u001C-\u0020\u0085-\u0085\u00A0-\u00A0\u1680-\u1680\u2000-\u200D\u2028-\u2029\u202F-\u202F\u205F-\u2060\u3000-\u3000\uFEFF-\uFEFF]*$' THEN sha256(convert_to(concat_ws(E'\n', NEW.name, nullif(NEW.description, '')), 'UTF8')) END)
        ON CONFLICT (kind, row_id) DO UPDATE
        SET dataset_id = EXCLUDED.dataset_id, content_hash = EXCLUDED.content_hash
        WHERE embeddings.dataset_id <> EXCLUDED.dataset_id
           OR embeddings.content_hash IS DISTINCT FROM EXCLUDED.content_hash;
    END IF;
    RETURN NULL;
END $_$;
CREATE FUNCTION public.evervec_vector_changed() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF NEW.content_hash IS NULL OR NEW.embedding IS NULL THEN
        NEW.embedding := NULL; NEW.embedded_hash := NULL; NEW.space_id := NULL; NEW.embedded_at := NULL;
    END IF;
    IF OLD.embedding IS NOT NULL AND (NEW.embedding IS NULL OR NEW.dataset_id <> OLD.dataset_id) THEN
        INSERT INTO vector_tombstones (vector_id, dataset_id) VALUES (OLD.vector_id, OLD.dataset_id);
    END IF;
    NEW.changed_xid := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE FUNCTION public.evervec_vector_deleted() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF OLD.embedding IS NOT NULL THEN
        INSERT INTO vector_tombstones (vector_id, dataset_id) VALUES (OLD.vector_id, OLD.dataset_id);
    END IF;
    -- a replica applies deletes without firing foreign keys
    DELETE FROM embed_work WHERE vector_id = OLD.vector_id;
    RETURN NULL;
END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.atom_links (
    source_id bigint NOT NULL,
    type text NOT NULL,
    target_id bigint NOT NULL,
    confidence real NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT atom_links_confidence_bounded CHECK (((confidence >= (0)::double precision) AND (confidence <= (1)::double precision))),
    CONSTRAINT atom_links_not_to_itself CHECK ((source_id <> target_id)),
    CONSTRAINT atom_links_type_known CHECK ((type = ANY (ARRAY['solves'::text, 'continues'::text, 'contradicts'::text, 'supports'::text, 'refines'::text, 'relates_to'::text, 'depends_on'::text])))
);
CREATE TABLE public.atom_sources (
    atom_id bigint NOT NULL,
    message_id bigint NOT NULL
);
CREATE TABLE public.atom_versions (
    atom_id bigint NOT NULL,
    version integer NOT NULL,
    type text NOT NULL,
    title text NOT NULL,
    content text NOT NULL,
    confidence real NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT atom_versions_type_known CHECK ((type = ANY (ARRAY['problem'::text, 'solution'::text, 'decision'::text, 'question'::text, 'insight'::text, 'idea'::text, 'blocker'::text, 'risk'::text, 'requirement'::text])))
);
CREATE TABLE public.atoms (
    id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    topic_id bigint,
    type text NOT NULL,
    title text NOT NULL,
    content text NOT NULL,
    confidence real NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT atoms_confidence_bounded CHECK (((confidence >= (0)::double precision) AND (confidence <= (1)::double precision))),
    CONSTRAINT atoms_type_known CHECK ((type = ANY (ARRAY['problem'::text, 'solution'::text, 'decision'::text, 'question'::text, 'insight'::text, 'idea'::text, 'blocker'::text, 'risk'::text, 'requirement'::text]))),
    CONSTRAINT atoms_version_positive CHECK ((version >= 1))
);
ALTER TABLE public.atoms ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.atoms_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.batch_items (
    job_id uuid NOT NULL,
    vector_id bigint NOT NULL,
    key text NOT NULL,
    content_hash bytea NOT NULL
);
CREATE TABLE public.batch_jobs (
    id uuid NOT NULL,
    job_type text NOT NULL,
    status text DEFAULT 'CREATED'::text NOT NULL,
    provider_id uuid,
    space_id integer,
    model text NOT NULL,
    external_id text,
    input_file text,
    rows integer DEFAULT 0 NOT NULL,
    texts integer DEFAULT 0 NOT NULL,
    ready integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    dropped integer DEFAULT 0 NOT NULL,
    returned integer DEFAULT 0 NOT NULL,
    strays integer DEFAULT 0 NOT NULL,
    listings integer DEFAULT 0 NOT NULL,
    tokens bigint DEFAULT '0'::bigint NOT NULL,
    reserved_tokens bigint DEFAULT '0'::bigint NOT NULL,
    bytes bigint DEFAULT '0'::bigint NOT NULL,
    usd_per_million_tokens double precision,
    said text,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    submitting_at timestamp with time zone,
    submitted_at timestamp with time zone,
    deadline timestamp with time zone,
    finished_at timestamp with time zone,
    cleaned_at timestamp with time zone,
    CONSTRAINT batch_jobs_asked_before_told CHECK (((external_id IS NULL) OR (submitting_at IS NOT NULL))),
    CONSTRAINT batch_jobs_cleaned_at_the_end CHECK (((cleaned_at IS NULL) OR (finished_at IS NOT NULL))),
    CONSTRAINT batch_jobs_failed_with_reason CHECK (((status <> 'FAILED'::text) OR (error IS NOT NULL))),
    CONSTRAINT batch_jobs_finished_or_not CHECK (((status = ANY (ARRAY['CREATED'::text, 'SUBMITTED'::text, 'PROCESSING'::text])) = (finished_at IS NULL))),
    CONSTRAINT batch_jobs_job_type_known CHECK ((job_type = ANY (ARRAY['EMBEDDING'::text, 'MEDIA_DESCRIPTION'::text]))),
    CONSTRAINT batch_jobs_status_known CHECK ((status = ANY (ARRAY['CREATED'::text, 'SUBMITTED'::text, 'PROCESSING'::text, 'COMPLETED'::text, 'FAILED'::text, 'CANCELLED'::text, 'EXPIRED'::text]))),
    CONSTRAINT batch_jobs_submitted_with_id CHECK (((status <> ALL (ARRAY['SUBMITTED'::text, 'PROCESSING'::text, 'COMPLETED'::text])) OR (external_id IS NOT NULL)))
);
CREATE TABLE public.chunks (
    id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    document_id bigint NOT NULL,
    ordinal integer NOT NULL,
    content text NOT NULL,
    vector_text text NOT NULL,
    content_hash bytea,
    heading text DEFAULT ''::text NOT NULL,
    line_start integer,
    line_end integer,
    tokens integer,
    CONSTRAINT chunks_content_hash_sha256 CHECK ((octet_length(content_hash) = 32)),
    CONSTRAINT chunks_lines_in_order CHECK (((line_start >= 1) AND (line_end >= line_start))),
    CONSTRAINT chunks_ordinal_not_negative CHECK ((ordinal >= 0))
);
ALTER TABLE public.chunks ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.chunks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.datasets (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    recall_target real,
    feed_from xid8,
    source_id uuid,
    tenant text,
    CONSTRAINT datasets_recall_target_bounded CHECK (((recall_target > (0)::double precision) AND (recall_target <= (1)::double precision))),
    CONSTRAINT datasets_slug_given CHECK ((slug <> ''::text))
);
CREATE TABLE public.documents (
    id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    uri text NOT NULL,
    title text DEFAULT ''::text NOT NULL,
    content_hash bytea,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    format text DEFAULT 'plain'::text NOT NULL,
    stamp text,
    content text,
    recipe text,
    chunk_count integer DEFAULT 0 NOT NULL,
    CONSTRAINT documents_content_hash_sha256 CHECK ((octet_length(content_hash) = 32))
);
ALTER TABLE public.documents ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.documents_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.embed_work (
    vector_id bigint NOT NULL,
    content_hash bytea NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    lease_owner uuid,
    lease_until timestamp with time zone,
    last_code text,
    last_error text,
    deferred boolean DEFAULT false NOT NULL,
    batch_tries smallint DEFAULT '0'::smallint NOT NULL,
    CONSTRAINT embed_work_lease_whole_or_not CHECK (((lease_owner IS NULL) = (lease_until IS NULL)))
)
WITH (fillfactor='70');
CREATE TABLE public.embedding_spaces (
    id integer NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    dimensions integer NOT NULL,
    metric text DEFAULT 'cosine'::text NOT NULL,
    state text DEFAULT 'ready'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    activated_at timestamp with time zone,
    template text DEFAULT '{title} › {heading}
{text}'::text NOT NULL,
    chunk_tokens integer DEFAULT 256 NOT NULL,
    text_tokens integer,
    CONSTRAINT embedding_spaces_active_since CHECK (((state <> 'active'::text) OR (activated_at IS NOT NULL))),
    CONSTRAINT embedding_spaces_chunk_tokens_enough CHECK ((chunk_tokens >= 32)),
    CONSTRAINT embedding_spaces_dimensions_indexable CHECK (((dimensions >= 1) AND (dimensions <= 4000))),
    CONSTRAINT embedding_spaces_metric_known CHECK ((metric = 'cosine'::text)),
    CONSTRAINT embedding_spaces_state_known CHECK ((state = ANY (ARRAY['ready'::text, 'active'::text])))
);
ALTER TABLE public.embedding_spaces ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.embedding_spaces_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.embeddings (
    vector_id bigint NOT NULL,
    kind smallint NOT NULL,
    row_id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    content_hash bytea,
    embedding public.vector,
    embedded_hash bytea,
    space_id integer,
    embedded_at timestamp with time zone,
    failed_hash bytea,
    changed_xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    pending_id bigint GENERATED ALWAYS AS (
CASE
    WHEN ((content_hash IS NOT NULL) AND (embedded_hash IS DISTINCT FROM content_hash) AND (failed_hash IS DISTINCT FROM content_hash)) THEN vector_id
    ELSE NULL::bigint
END) STORED,
    CONSTRAINT embeddings_blank_without_vector CHECK (((content_hash IS NOT NULL) OR (embedding IS NULL))),
    CONSTRAINT embeddings_content_hash_sha256 CHECK ((octet_length(content_hash) = 32)),
    CONSTRAINT embeddings_embedded_or_failed CHECK ((failed_hash <> embedded_hash)),
    CONSTRAINT embeddings_embedded_whole_or_not CHECK ((num_nulls(embedding, embedded_hash, space_id, embedded_at) = ANY (ARRAY[0, 4])))
);
CREATE VIEW public.embedding_status AS
 SELECT e.vector_id,
    e.kind,
    e.row_id,
    e.dataset_id,
        CASE
            WHEN (e.content_hash IS NULL) THEN 'EMPTY'::text
            WHEN (e.embedded_hash = e.content_hash) THEN 'READY'::text
            WHEN (e.failed_hash = e.content_hash) THEN 'FAILED'::text
            ELSE 'PENDING'::text
        END AS embedding_status,
        CASE
            WHEN (e.embedded_hash IS DISTINCT FROM e.content_hash) THEN w.last_error
            ELSE NULL::text
        END AS error_message,
    w.attempts,
    w.not_before,
    w.lease_until,
    e.embedded_at
   FROM (public.embeddings e
     LEFT JOIN public.embed_work w ON (((w.vector_id = e.vector_id) AND (w.content_hash = e.content_hash))));
ALTER TABLE public.embeddings ALTER COLUMN vector_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.embeddings_vector_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.extract_work (
    message_id bigint NOT NULL,
    revision integer NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    lease_owner uuid,
    lease_until timestamp with time zone,
    dead_at timestamp with time zone,
    last_code text,
    last_error text,
    CONSTRAINT extract_work_dead_with_reason CHECK (((dead_at IS NULL) OR (last_error IS NOT NULL))),
    CONSTRAINT extract_work_lease_whole_or_not CHECK (((lease_owner IS NULL) = (lease_until IS NULL)))
)
WITH (fillfactor='70');
CREATE TABLE public.index_runs (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    dataset_id uuid NOT NULL,
    mode text NOT NULL,
    trigger text NOT NULL,
    state text DEFAULT 'queued'::text NOT NULL,
    changed jsonb,
    scope text[],
    embeds boolean DEFAULT true NOT NULL,
    cursor text,
    attempts integer DEFAULT 0 NOT NULL,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    documents_new bigint DEFAULT '0'::bigint NOT NULL,
    documents_changed bigint DEFAULT '0'::bigint NOT NULL,
    documents_unchanged bigint DEFAULT '0'::bigint NOT NULL,
    documents_moved bigint DEFAULT '0'::bigint NOT NULL,
    documents_deleted bigint DEFAULT '0'::bigint NOT NULL,
    documents_skipped bigint DEFAULT '0'::bigint NOT NULL,
    chunks_new bigint DEFAULT '0'::bigint NOT NULL,
    chunks_updated bigint DEFAULT '0'::bigint NOT NULL,
    chunks_skipped bigint DEFAULT '0'::bigint NOT NULL,
    chunks_deleted bigint DEFAULT '0'::bigint NOT NULL,
    texts_sent bigint DEFAULT '0'::bigint NOT NULL,
    embeddings_generated bigint DEFAULT '0'::bigint NOT NULL,
    embeddings_reused bigint DEFAULT '0'::bigint NOT NULL,
    requests bigint DEFAULT '0'::bigint NOT NULL,
    tokens bigint DEFAULT '0'::bigint NOT NULL,
    full_texts bigint DEFAULT '0'::bigint NOT NULL,
    full_tokens bigint DEFAULT '0'::bigint NOT NULL,
    seconds_list double precision DEFAULT '0'::double precision NOT NULL,
    seconds_read double precision DEFAULT '0'::double precision NOT NULL,
    seconds_chunk double precision DEFAULT '0'::double precision NOT NULL,
    seconds_write double precision DEFAULT '0'::double precision NOT NULL,
    seconds_embed double precision DEFAULT '0'::double precision NOT NULL,
    seconds_total double precision DEFAULT '0'::double precision NOT NULL,
    cost_usd double precision,
    full_cost_usd double precision,
    skipped jsonb DEFAULT '{}'::jsonb NOT NULL,
    examples jsonb DEFAULT '[]'::jsonb NOT NULL,
    error text,
    deferred boolean DEFAULT false NOT NULL,
    CONSTRAINT index_runs_delta_with_ids CHECK (((mode = 'delta'::text) = (changed IS NOT NULL))),
    CONSTRAINT index_runs_failed_with_reason CHECK (((state <> 'failed'::text) OR (error IS NOT NULL))),
    CONSTRAINT index_runs_finished_or_not CHECK (((state = ANY (ARRAY['queued'::text, 'running'::text])) = (finished_at IS NULL))),
    CONSTRAINT index_runs_mode_known CHECK ((mode = ANY (ARRAY['delta'::text, 'compare'::text, 'full'::text]))),
    CONSTRAINT index_runs_state_known CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'done'::text, 'failed'::text, 'cancelled'::text])))
);
CREATE TABLE public.llm_providers (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    base_url text,
    model text NOT NULL,
    chat_model text,
    api_key_encrypted bytea,
    space_id integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_until timestamp with time zone,
    pause_code text,
    pause_error text,
    failures integer DEFAULT 0 NOT NULL,
    usd_per_million_tokens double precision,
    dimensions integer,
    CONSTRAINT llm_providers_name_given CHECK (((name <> ''::text) AND (model <> ''::text))),
    CONSTRAINT llm_providers_price_not_negative CHECK ((usd_per_million_tokens >= (0)::double precision)),
    CONSTRAINT llm_providers_type_known CHECK ((type = ANY (ARRAY['local'::text, 'ollama'::text, 'gemini'::text, 'openai'::text])))
);
CREATE TABLE public.media (
    document_id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    path text NOT NULL,
    media_type text NOT NULL,
    bytes bigint NOT NULL,
    content_hash bytea NOT NULL,
    described_hash bytea,
    failed_hash bytea,
    error text,
    job_id uuid,
    tries smallint DEFAULT '0'::smallint NOT NULL,
    CONSTRAINT media_content_hash_sha256 CHECK ((octet_length(content_hash) = 32)),
    CONSTRAINT media_failed_with_reason CHECK (((failed_hash IS NULL) OR (error IS NOT NULL)))
);
CREATE TABLE public.messages (
    id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    chat text NOT NULL,
    external_id text NOT NULL,
    author text NOT NULL,
    sent_at timestamp with time zone DEFAULT now() NOT NULL,
    edited_at timestamp with time zone,
    reply_to text,
    content text NOT NULL,
    revision integer DEFAULT 1 NOT NULL,
    score real,
    signal text,
    score_factors jsonb,
    scored_revision integer,
    extracted_revision integer,
    unscored_id bigint GENERATED ALWAYS AS (
CASE
    WHEN (scored_revision IS DISTINCT FROM revision) THEN id
    ELSE NULL::bigint
END) STORED,
    unextracted_id bigint GENERATED ALWAYS AS (
CASE
    WHEN ((scored_revision = revision) AND (extracted_revision IS DISTINCT FROM revision) AND ((signal <> 'noise'::text) OR (extracted_revision IS NOT NULL))) THEN id
    ELSE NULL::bigint
END) STORED,
    CONSTRAINT messages_revision_not_ahead CHECK (((scored_revision <= revision) AND (extracted_revision <= revision))),
    CONSTRAINT messages_score_bounded CHECK (((score >= (0)::double precision) AND (score <= (1)::double precision))),
    CONSTRAINT messages_scored_whole_or_not CHECK ((num_nulls(score, signal, score_factors, scored_revision) = ANY (ARRAY[0, 4]))),
    CONSTRAINT messages_signal_known CHECK ((signal = ANY (ARRAY['signal'::text, 'weak_signal'::text, 'noise'::text])))
);
ALTER TABLE public.messages ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.messages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.mirrors (
    holder uuid NOT NULL,
    dataset_id uuid NOT NULL,
    host text NOT NULL,
    folder text NOT NULL,
    pid integer NOT NULL,
    state text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    vectors bigint DEFAULT '0'::bigint NOT NULL,
    bytes bigint DEFAULT '0'::bigint NOT NULL,
    watermark text,
    watermark_at timestamp with time zone,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    checked_at timestamp with time zone,
    in_sync boolean,
    missing bigint,
    extra bigint,
    stale bigint,
    asked text,
    asked_at timestamp with time zone,
    answered_at timestamp with time zone,
    CONSTRAINT mirrors_asked_known CHECK ((asked = ANY (ARRAY['check'::text, 'rebuild'::text, 'compact'::text]))),
    CONSTRAINT mirrors_checked_whole_or_not CHECK ((num_nulls(checked_at, in_sync, missing, extra, stale) = ANY (ARRAY[0, 5]))),
    CONSTRAINT mirrors_state_known CHECK ((state = ANY (ARRAY['loading'::text, 'building'::text, 'ready'::text, 'dropped'::text, 'failed'::text])))
);
CREATE TABLE public.projects (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    root_path text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT projects_slug_given CHECK ((slug <> ''::text))
);
CREATE TABLE public.recall_checks (
    id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    engine text NOT NULL,
    recall real NOT NULL,
    target real NOT NULL,
    sampled integer NOT NULL,
    measured_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT recall_checks_engine_known CHECK ((engine = ANY (ARRAY['mirror'::text, 'pgvector'::text]))),
    CONSTRAINT recall_checks_recall_bounded CHECK ((((recall >= (0)::double precision) AND (recall <= (1)::double precision)) AND ((target >= (0)::double precision) AND (target <= (1)::double precision))))
);
ALTER TABLE public.recall_checks ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.recall_checks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.sources (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    spec jsonb NOT NULL,
    url_encrypted bytea,
    cursor jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    synced_at timestamp with time zone,
    CONSTRAINT sources_name_given CHECK ((name <> ''::text)),
    CONSTRAINT sources_type_known CHECK ((type = ANY (ARRAY['files'::text, 'sql'::text])))
);
CREATE TABLE public.topics (
    id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    name text NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT topics_name_given CHECK ((name <> ''::text))
);
ALTER TABLE public.topics ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.topics_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.vector_tombstones (
    id bigint NOT NULL,
    vector_id bigint NOT NULL,
    dataset_id uuid NOT NULL,
    deleted_xid xid8 DEFAULT pg_current_xact_id() NOT NULL
);
ALTER TABLE public.vector_tombstones ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.vector_tombstones_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
COPY public.alembic_version (version_num) FROM stdin;
0005
\.
COPY public.atom_links (source_id, type, target_id, confidence, created_at) FROM stdin;
\.
COPY public.atom_sources (atom_id, message_id) FROM stdin;
\.
COPY public.atom_versions (atom_id, version, type, title, content, confidence, created_at) FROM stdin;
\.
COPY public.atoms (id, dataset_id, topic_id, type, title, content, confidence, version, created_at, updated_at) FROM stdin;
\.
COPY public.batch_items (job_id, vector_id, key, content_hash) FROM stdin;
\.
COPY public.batch_jobs (id, job_type, status, provider_id, space_id, model, external_id, input_file, rows, texts, ready, failed, dropped, returned, strays, listings, tokens, reserved_tokens, bytes, usd_per_million_tokens, said, error, created_at, updated_at, submitting_at, submitted_at, deadline, finished_at, cleaned_at) FROM stdin;
\.
COPY public.chunks (id, dataset_id, document_id, ordinal, content, vector_text, content_hash, heading, line_start, line_end, tokens) FROM stdin;
\.
COPY public.datasets (id, project_id, slug, name, created_at, deleted_at, recall_target, feed_from, source_id, tenant) FROM stdin;
\.
COPY public.documents (id, dataset_id, uri, title, content_hash, version, created_at, updated_at, format, stamp, content, recipe, chunk_count) FROM stdin;
\.
COPY public.embed_work (vector_id, content_hash, attempts, not_before, lease_owner, lease_until, last_code, last_error, deferred, batch_tries) FROM stdin;
\.
COPY public.embedding_spaces (id, provider, model, dimensions, metric, state, created_at, activated_at, template, chunk_tokens, text_tokens) FROM stdin;
\.
COPY public.embeddings (vector_id, kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, embedded_at, failed_hash, changed_xid) FROM stdin;
\.
COPY public.extract_work (message_id, revision, attempts, not_before, lease_owner, lease_until, dead_at, last_code, last_error) FROM stdin;
\.
COPY public.index_runs (id, dataset_id, mode, trigger, state, changed, scope, embeds, cursor, attempts, not_before, created_at, started_at, finished_at, documents_new, documents_changed, documents_unchanged, documents_moved, documents_deleted, documents_skipped, chunks_new, chunks_updated, chunks_skipped, chunks_deleted, texts_sent, embeddings_generated, embeddings_reused, requests, tokens, full_texts, full_tokens, seconds_list, seconds_read, seconds_chunk, seconds_write, seconds_embed, seconds_total, cost_usd, full_cost_usd, skipped, examples, error, deferred) FROM stdin;
\.
COPY public.llm_providers (id, name, type, base_url, model, chat_model, api_key_encrypted, space_id, created_at, used_at, paused_until, pause_code, pause_error, failures, usd_per_million_tokens, dimensions) FROM stdin;
\.
COPY public.media (document_id, dataset_id, path, media_type, bytes, content_hash, described_hash, failed_hash, error, job_id, tries) FROM stdin;
\.
COPY public.messages (id, dataset_id, chat, external_id, author, sent_at, edited_at, reply_to, content, revision, score, signal, score_factors, scored_revision, extracted_revision) FROM stdin;
\.
COPY public.mirrors (holder, dataset_id, host, folder, pid, state, reason, vectors, bytes, watermark, watermark_at, seen_at, checked_at, in_sync, missing, extra, stale, asked, asked_at, answered_at) FROM stdin;
\.
COPY public.projects (id, slug, name, root_path, created_at, deleted_at) FROM stdin;
\.
COPY public.recall_checks (id, dataset_id, engine, recall, target, sampled, measured_at) FROM stdin;
\.
COPY public.sources (id, project_id, name, type, spec, url_encrypted, cursor, created_at, synced_at) FROM stdin;
\.
COPY public.topics (id, dataset_id, name, description, created_at, updated_at) FROM stdin;
\.
COPY public.vector_tombstones (id, vector_id, dataset_id, deleted_xid) FROM stdin;
\.
SELECT pg_catalog.setval('public.atoms_id_seq', 1, false);
SELECT pg_catalog.setval('public.chunks_id_seq', 1, false);
SELECT pg_catalog.setval('public.documents_id_seq', 1, false);
SELECT pg_catalog.setval('public.embedding_spaces_id_seq', 1, false);
SELECT pg_catalog.setval('public.embeddings_vector_id_seq', 1, false);
SELECT pg_catalog.setval('public.messages_id_seq', 1, false);
SELECT pg_catalog.setval('public.recall_checks_id_seq', 1, false);
SELECT pg_catalog.setval('public.topics_id_seq', 1, false);
SELECT pg_catalog.setval('public.vector_tombstones_id_seq', 1, false);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.atom_links
    ADD CONSTRAINT atom_links_pkey PRIMARY KEY (source_id, type, target_id);
ALTER TABLE ONLY public.atom_sources
    ADD CONSTRAINT atom_sources_pkey PRIMARY KEY (atom_id, message_id);
ALTER TABLE ONLY public.atom_versions
    ADD CONSTRAINT atom_versions_pkey PRIMARY KEY (atom_id, version);
ALTER TABLE ONLY public.atoms
    ADD CONSTRAINT atoms_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.batch_items
    ADD CONSTRAINT batch_items_pkey PRIMARY KEY (job_id, vector_id);
ALTER TABLE ONLY public.batch_jobs
    ADD CONSTRAINT batch_jobs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.chunks
    ADD CONSTRAINT chunks_document_id_ordinal_key UNIQUE (document_id, ordinal) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY public.chunks
    ADD CONSTRAINT chunks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.datasets
    ADD CONSTRAINT datasets_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.datasets
    ADD CONSTRAINT datasets_project_id_slug_key UNIQUE (project_id, slug);
ALTER TABLE ONLY public.documents
    ADD CONSTRAINT documents_dataset_id_uri_key UNIQUE (dataset_id, uri);
ALTER TABLE ONLY public.documents
    ADD CONSTRAINT documents_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.embed_work
    ADD CONSTRAINT embed_work_pkey PRIMARY KEY (vector_id);
ALTER TABLE ONLY public.embedding_spaces
    ADD CONSTRAINT embedding_spaces_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.embedding_spaces
    ADD CONSTRAINT embedding_spaces_provider_model_dimensions_metric_key UNIQUE (provider, model, dimensions, metric);
ALTER TABLE ONLY public.embeddings
    ADD CONSTRAINT embeddings_kind_row_id_key UNIQUE (kind, row_id) WITH (fillfactor='50');
ALTER TABLE ONLY public.embeddings
    ADD CONSTRAINT embeddings_pkey PRIMARY KEY (vector_id) WITH (fillfactor='50');
ALTER TABLE ONLY public.extract_work
    ADD CONSTRAINT extract_work_pkey PRIMARY KEY (message_id);
ALTER TABLE ONLY public.index_runs
    ADD CONSTRAINT index_runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.llm_providers
    ADD CONSTRAINT llm_providers_name_key UNIQUE (name);
ALTER TABLE ONLY public.llm_providers
    ADD CONSTRAINT llm_providers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_pkey PRIMARY KEY (document_id);
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_dataset_id_chat_external_id_key UNIQUE (dataset_id, chat, external_id);
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.mirrors
    ADD CONSTRAINT mirrors_pkey PRIMARY KEY (holder, dataset_id);
ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_slug_key UNIQUE (slug);
ALTER TABLE ONLY public.recall_checks
    ADD CONSTRAINT recall_checks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.sources
    ADD CONSTRAINT sources_project_id_name_key UNIQUE (project_id, name);
ALTER TABLE ONLY public.topics
    ADD CONSTRAINT topics_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.vector_tombstones
    ADD CONSTRAINT vector_tombstones_pkey PRIMARY KEY (id);
CREATE INDEX atom_links_target_id_idx ON public.atom_links USING btree (target_id);
CREATE INDEX atom_sources_message_id_idx ON public.atom_sources USING btree (message_id);
CREATE INDEX atoms_dataset_id_idx ON public.atoms USING btree (dataset_id, id);
CREATE INDEX atoms_topic_id_idx ON public.atoms USING btree (topic_id);
CREATE INDEX batch_items_job_id_key_idx ON public.batch_items USING btree (job_id, key);
CREATE INDEX batch_jobs_open_idx ON public.batch_jobs USING btree (created_at) WHERE (cleaned_at IS NULL);
CREATE INDEX batch_jobs_provider_id_idx ON public.batch_jobs USING btree (provider_id);
CREATE INDEX chunks_dataset_id_idx ON public.chunks USING btree (dataset_id, id) INCLUDE (tokens);
CREATE INDEX datasets_source_id_idx ON public.datasets USING btree (source_id);
CREATE INDEX documents_dataset_id_content_hash_idx ON public.documents USING btree (dataset_id, content_hash);
CREATE INDEX documents_recipe_dataset_id_idx ON public.documents USING btree (recipe, dataset_id) WHERE (recipe IS NOT NULL);
CREATE INDEX documents_waiting_idx ON public.documents USING btree (dataset_id, id) WHERE (content IS NOT NULL);
CREATE INDEX embed_work_content_hash_idx ON public.embed_work USING btree (content_hash);
CREATE INDEX embed_work_lease_owner_idx ON public.embed_work USING btree (lease_owner) WHERE (lease_owner IS NOT NULL);
CREATE UNIQUE INDEX embedding_spaces_one_active ON public.embedding_spaces USING btree (state) WHERE (state = 'active'::text);
CREATE INDEX embeddings_changed_idx ON public.embeddings USING btree (dataset_id, changed_xid, vector_id) WHERE (embedding IS NOT NULL);
CREATE INDEX embeddings_failed_idx ON public.embeddings USING btree (dataset_id, vector_id) WHERE (failed_hash = content_hash);
CREATE INDEX embeddings_pending_idx ON public.embeddings USING btree (dataset_id, pending_id) INCLUDE (kind) WHERE (pending_id IS NOT NULL);
CREATE INDEX embeddings_same_text_idx ON public.embeddings USING btree (embedded_hash) WHERE (embedded_hash IS NOT NULL);
CREATE INDEX index_runs_dataset_id_created_at_idx ON public.index_runs USING btree (dataset_id, created_at);
CREATE UNIQUE INDEX index_runs_one_queued ON public.index_runs USING btree (dataset_id) WHERE (state = 'queued'::text);
CREATE UNIQUE INDEX index_runs_one_running ON public.index_runs USING btree (dataset_id) WHERE (state = 'running'::text);
CREATE INDEX media_dataset_id_idx ON public.media USING btree (dataset_id);
CREATE INDEX media_job_id_idx ON public.media USING btree (job_id);
CREATE INDEX messages_unextracted_idx ON public.messages USING btree (dataset_id, unextracted_id) WHERE (unextracted_id IS NOT NULL);
CREATE INDEX messages_unscored_idx ON public.messages USING btree (dataset_id, unscored_id) WHERE (unscored_id IS NOT NULL);
CREATE INDEX mirrors_dataset_id_idx ON public.mirrors USING btree (dataset_id);
CREATE INDEX recall_checks_dataset_id_engine_measured_at_idx ON public.recall_checks USING btree (dataset_id, engine, measured_at);
CREATE UNIQUE INDEX topics_dataset_id_name_key ON public.topics USING btree (dataset_id, lower(name));
CREATE INDEX vector_tombstones_feed_idx ON public.vector_tombstones USING btree (dataset_id, deleted_xid, vector_id);
CREATE TRIGGER evervec_message_revised BEFORE UPDATE OF content ON public.messages FOR EACH ROW WHEN ((new.content IS DISTINCT FROM old.content)) EXECUTE FUNCTION public.evervec_message_revised();
ALTER TABLE public.messages ENABLE ALWAYS TRIGGER evervec_message_revised;
CREATE TRIGGER evervec_track_atoms AFTER INSERT OR DELETE ON public.atoms FOR EACH ROW EXECUTE FUNCTION public.evervec_track_atoms();
ALTER TABLE public.atoms ENABLE ALWAYS TRIGGER evervec_track_atoms;
CREATE TRIGGER evervec_track_atoms_truncate AFTER TRUNCATE ON public.atoms FOR EACH STATEMENT EXECUTE FUNCTION public.evervec_track_atoms();
ALTER TABLE public.atoms ENABLE ALWAYS TRIGGER evervec_track_atoms_truncate;
CREATE TRIGGER evervec_track_atoms_update AFTER UPDATE OF id, dataset_id, content ON public.atoms FOR EACH ROW WHEN (((new.id IS DISTINCT FROM old.id) OR (new.dataset_id IS DISTINCT FROM old.dataset_id) OR (new.content IS DISTINCT FROM old.content))) EXECUTE FUNCTION public.evervec_track_atoms();
ALTER TABLE public.atoms ENABLE ALWAYS TRIGGER evervec_track_atoms_update;
CREATE TRIGGER evervec_track_chunks AFTER INSERT OR DELETE ON public.chunks FOR EACH ROW EXECUTE FUNCTION public.evervec_track_chunks();
ALTER TABLE public.chunks ENABLE ALWAYS TRIGGER evervec_track_chunks;
CREATE TRIGGER evervec_track_chunks_truncate AFTER TRUNCATE ON public.chunks FOR EACH STATEMENT EXECUTE FUNCTION public.evervec_track_chunks();
ALTER TABLE public.chunks ENABLE ALWAYS TRIGGER evervec_track_chunks_truncate;
CREATE TRIGGER evervec_track_chunks_update AFTER UPDATE OF id, dataset_id, vector_text ON public.chunks FOR EACH ROW WHEN (((new.id IS DISTINCT FROM old.id) OR (new.dataset_id IS DISTINCT FROM old.dataset_id) OR (new.vector_text IS DISTINCT FROM old.vector_text))) EXECUTE FUNCTION public.evervec_track_chunks();
ALTER TABLE public.chunks ENABLE ALWAYS TRIGGER evervec_track_chunks_update;
CREATE TRIGGER evervec_track_messages AFTER INSERT OR DELETE ON public.messages FOR EACH ROW EXECUTE FUNCTION public.evervec_track_messages();
ALTER TABLE public.messages ENABLE ALWAYS TRIGGER evervec_track_messages;
CREATE TRIGGER evervec_track_messages_truncate AFTER TRUNCATE ON public.messages FOR EACH STATEMENT EXECUTE FUNCTION public.evervec_track_messages();
ALTER TABLE public.messages ENABLE ALWAYS TRIGGER evervec_track_messages_truncate;
CREATE TRIGGER evervec_track_messages_update AFTER UPDATE OF id, dataset_id, content ON public.messages FOR EACH ROW WHEN (((new.id IS DISTINCT FROM old.id) OR (new.dataset_id IS DISTINCT FROM old.dataset_id) OR (new.content IS DISTINCT FROM old.content))) EXECUTE FUNCTION public.evervec_track_messages();
ALTER TABLE public.messages ENABLE ALWAYS TRIGGER evervec_track_messages_update;
CREATE TRIGGER evervec_track_topics AFTER INSERT OR DELETE ON public.topics FOR EACH ROW EXECUTE FUNCTION public.evervec_track_topics();
ALTER TABLE public.topics ENABLE ALWAYS TRIGGER evervec_track_topics;
CREATE TRIGGER evervec_track_topics_truncate AFTER TRUNCATE ON public.topics FOR EACH STATEMENT EXECUTE FUNCTION public.evervec_track_topics();
ALTER TABLE public.topics ENABLE ALWAYS TRIGGER evervec_track_topics_truncate;
CREATE TRIGGER evervec_track_topics_update AFTER UPDATE OF id, dataset_id, name, description ON public.topics FOR EACH ROW WHEN (((new.id IS DISTINCT FROM old.id) OR (new.dataset_id IS DISTINCT FROM old.dataset_id) OR (new.name IS DISTINCT FROM old.name) OR (new.description IS DISTINCT FROM old.description))) EXECUTE FUNCTION public.evervec_track_topics();
ALTER TABLE public.topics ENABLE ALWAYS TRIGGER evervec_track_topics_update;
CREATE TRIGGER evervec_vector_changed BEFORE UPDATE OF embedding, content_hash, dataset_id ON public.embeddings FOR EACH ROW WHEN (((new.embedding IS NULL) OR (new.content_hash IS NULL) OR (new.dataset_id <> old.dataset_id) OR ((new.changed_xid = old.changed_xid) AND (new.embedding IS DISTINCT FROM old.embedding)))) EXECUTE FUNCTION public.evervec_vector_changed();
ALTER TABLE public.embeddings ENABLE ALWAYS TRIGGER evervec_vector_changed;
CREATE TRIGGER evervec_vector_deleted AFTER DELETE ON public.embeddings FOR EACH ROW EXECUTE FUNCTION public.evervec_vector_deleted();
ALTER TABLE public.embeddings ENABLE ALWAYS TRIGGER evervec_vector_deleted;
ALTER TABLE ONLY public.atom_links
    ADD CONSTRAINT atom_links_source_id_fkey FOREIGN KEY (source_id) REFERENCES public.atoms(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.atom_links
    ADD CONSTRAINT atom_links_target_id_fkey FOREIGN KEY (target_id) REFERENCES public.atoms(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.atom_sources
    ADD CONSTRAINT atom_sources_atom_id_fkey FOREIGN KEY (atom_id) REFERENCES public.atoms(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.atom_sources
    ADD CONSTRAINT atom_sources_message_id_fkey FOREIGN KEY (message_id) REFERENCES public.messages(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.atom_versions
    ADD CONSTRAINT atom_versions_atom_id_fkey FOREIGN KEY (atom_id) REFERENCES public.atoms(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.atoms
    ADD CONSTRAINT atoms_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.atoms
    ADD CONSTRAINT atoms_topic_id_fkey FOREIGN KEY (topic_id) REFERENCES public.topics(id) ON DELETE SET NULL;
ALTER TABLE ONLY public.batch_items
    ADD CONSTRAINT batch_items_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.batch_jobs(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.batch_jobs
    ADD CONSTRAINT batch_jobs_provider_id_fkey FOREIGN KEY (provider_id) REFERENCES public.llm_providers(id) ON DELETE SET NULL;
ALTER TABLE ONLY public.chunks
    ADD CONSTRAINT chunks_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.chunks
    ADD CONSTRAINT chunks_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.documents(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.datasets
    ADD CONSTRAINT datasets_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.datasets
    ADD CONSTRAINT datasets_source_id_fkey FOREIGN KEY (source_id) REFERENCES public.sources(id) ON DELETE SET NULL;
ALTER TABLE ONLY public.documents
    ADD CONSTRAINT documents_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.embed_work
    ADD CONSTRAINT embed_work_vector_id_fkey FOREIGN KEY (vector_id) REFERENCES public.embeddings(vector_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.extract_work
    ADD CONSTRAINT extract_work_message_id_fkey FOREIGN KEY (message_id) REFERENCES public.messages(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.index_runs
    ADD CONSTRAINT index_runs_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.llm_providers
    ADD CONSTRAINT llm_providers_space_id_fkey FOREIGN KEY (space_id) REFERENCES public.embedding_spaces(id);
ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_document_id_fkey FOREIGN KEY (document_id) REFERENCES public.documents(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.batch_jobs(id) ON DELETE SET NULL;
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.mirrors
    ADD CONSTRAINT mirrors_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.recall_checks
    ADD CONSTRAINT recall_checks_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.sources
    ADD CONSTRAINT sources_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.topics
    ADD CONSTRAINT topics_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES public.datasets(id) ON DELETE CASCADE;
