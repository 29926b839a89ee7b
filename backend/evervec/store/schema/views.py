"""What is read from SQL: the chunks of attached tables, as one view and as one a space, and `search`.

The views of attached tables select from that of their dataset's space. Those, and `search`, name the widths of the spaces, or
no index would fit: `evervec_show_vectors` makes them again whenever there is another space.
"""

from collections.abc import Iterator
from typing import Final

from evervec.store.database.connections import quoted
from evervec.store.database.rights import CHUNKS_VIEW
from evervec.store.schema.embeddables import CHUNK, EMBEDDABLES, Embeddable
from evervec.store.schema.predicates import EXACT_SEARCH_BELOW

SHOW: Final = "evervec_show_vectors"

# %1$s is the schema of pgvector, %2$s the width of a space, %3$s the space, %4$s the name of the view and %5$s a
# condition. The outer cast takes the width off the column, so that a replaced view has the same columns and keeps its
# rights and whatever reads it; the planner looks through that cast. The branches have no condition: only then they are planned
# as one sorted set, with the HNSW index for the first. A failed row whose dataset is not known is listed under its source.
CHUNKS_SHOWN = """
CREATE OR REPLACE VIEW {schema}.%4$s AS
SELECT r.dataset_id, coalesce(d.key, r.key) AS key, c.ordinal AS chunk, c.content AS text, d.title, r.embedding,
       CASE WHEN r.reason IS NOT NULL THEN 'FAILED'
            WHEN r.content_hash IS NULL THEN 'EMPTY'
            WHEN r.embedded_hash = r.content_hash THEN 'READY'
            WHEN r.failed_hash = r.content_hash THEN 'FAILED'
            ELSE 'PENDING' END AS embedding_status,
       CASE WHEN r.embedded_hash IS DISTINCT FROM r.content_hash THEN w.last_error ELSE r.reason END AS error_message
FROM (
    SELECT e.kind, e.vector_id, e.row_id, e.dataset_id, e.content_hash, e.embedded_hash, e.failed_hash,
           (e.embedding::%1$s.halfvec%2$s)::%1$s.halfvec AS embedding, NULL::jsonb AS key, NULL::text AS reason, e.space_id
    FROM {schema}.embeddings e
    UNION ALL
    SELECT {kind}::smallint, NULL::bigint, NULL::bigint, coalesce(f.dataset_id, f.source_id), NULL::bytea, NULL::bytea, NULL::bytea,
           NULL::%1$s.halfvec, f.key, f.reason, %3$s::integer
    FROM {schema}.attached_failures f
) r
LEFT JOIN {schema}.chunks c ON c.id = r.row_id
LEFT JOIN {schema}.documents d ON d.id = c.document_id
LEFT JOIN {schema}.embed_work w ON w.vector_id = r.vector_id AND w.content_hash = r.content_hash
WHERE r.kind = {kind} AND (d.key IS NOT NULL OR r.key IS NOT NULL) %5$s
"""
ONLY_PRESENT = """
AND (r.space_id IS NULL OR r.space_id = (SELECT s.space_id FROM {schema}.datasets s WHERE s.id = r.dataset_id))
"""

# few rows are compared one by one, and so are all where the graph returned fewer than were asked for; they are counted by
# the index of their own table, as that of the vectors would be read to its end for a kind that is not there
OF_KIND = """
    found := (SELECT count(*) FROM (SELECT FROM {schema}.{table} r WHERE r.{dataset} = chosen LIMIT {below}) s);
    best := '{{}}';
    IF found = {below} THEN
        best := ARRAY(SELECT e.vector_id FROM {schema}.embeddings e
            WHERE e.space_id = %3$s AND e.kind = {kind} AND e.dataset_id = chosen AND e.embedding IS NOT NULL
            ORDER BY e.embedding::%1$s.halfvec%2$s OPERATOR(%1$s.<=>) search.query_vector::%1$s.halfvec%2$s LIMIT search.k);
    END IF;
    IF found > 0 AND cardinality(best) < search.k THEN
        best := ARRAY(SELECT e.vector_id FROM {schema}.embeddings e
            WHERE e.space_id = %3$s AND e.kind = {kind} AND e.dataset_id = chosen AND e.embedding IS NOT NULL
            ORDER BY e.embedding OPERATOR(%1$s.<=>) search.query_vector LIMIT search.k);
    END IF;
    nearest := nearest || best;
"""

NEAREST = """
CREATE OR REPLACE FUNCTION {schema}.search(query_vector %1$s.vector, dataset text, k integer DEFAULT 10)
RETURNS TABLE (kind text, id bigint, score double precision, text text, title text, document text, chunk integer,
               table_name text, key jsonb, fields jsonb)
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $search$
#variable_conflict use_column
DECLARE
    scope uuid[];
    chosen uuid;
    present integer;
    found bigint;
    best bigint[];
    nearest bigint[] := '{{}}';
    -- SET would be refused to a role that restores a dump before pgvector is loaded
    ef_search text := current_setting('hnsw.ef_search');
    iterative_scan text := current_setting('hnsw.iterative_scan');
BEGIN
    -- {show}() makes this again for another space
    scope := ARRAY(SELECT d.id FROM {schema}.datasets d JOIN {schema}.projects p ON p.id = d.project_id
        WHERE d.deleted_at IS NULL AND p.deleted_at IS NULL
          AND search.dataset IN (d.slug, p.slug || '/' || d.slug, d.id::text));
    IF cardinality(scope) <> 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('There %%s dataset %%L.', CASE cardinality(scope) WHEN 0 THEN 'is no' ELSE 'is more than one' END, search.dataset),
            HINT = 'Write project/dataset, as `evervec status` lists them.';
    END IF;
    chosen := scope[1];
    present := (SELECT d.space_id FROM {schema}.datasets d WHERE d.id = chosen);
    PERFORM set_config('hnsw.iterative_scan', 'strict_order', true),
            set_config('hnsw.ef_search', least(1000, greatest(100, 4 * search.k))::text, true);
%2$s
    RETURN QUERY
    SELECT CASE e.kind {names} END, e.row_id, 1 - (e.embedding OPERATOR(%1$s.<=>) search.query_vector) AS score,
           CASE e.kind {texts} END, d.title, d.uri, c.ordinal,
           CASE WHEN d.key IS NOT NULL THEN (SELECT s.name FROM {schema}.sources s JOIN {schema}.datasets o ON o.source_id = s.id
                                             WHERE o.id = e.dataset_id) END, d.key, d.fields
    FROM {schema}.embeddings e
    LEFT JOIN {schema}.chunks c ON e.kind = {chunk} AND c.id = e.row_id
    LEFT JOIN {schema}.documents d ON d.id = c.document_id
    WHERE e.vector_id = ANY(nearest) AND e.embedding IS NOT NULL
    ORDER BY 3 DESC, e.kind, e.row_id LIMIT search.k;
    PERFORM set_config('hnsw.iterative_scan', iterative_scan, true), set_config('hnsw.ef_search', ef_search, true);
END
$search$
"""

# A function of that name which is not ours stays, where the schema is shared with others.
SHOW_VECTORS = """
DECLARE
    home text;
    one record;
    branches text := '';
BEGIN
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    EXECUTE format($made${chunks}$made$, home, '', 'NULL', '{view}', $made${present}$made$);
    FOR one IN SELECT s.id, format('(%s)', s.dimensions) AS width FROM {schema}.embedding_spaces s
        JOIN pg_constraint c ON c.conrelid = '{schema}.embeddings'::regclass AND c.conname = 'embeddings_width_' || s.id ORDER BY s.id
    LOOP
        EXECUTE format($made${chunks}$made$, home, one.width, one.id, '{view}_' || one.id, 'AND r.space_id = ' || one.id);
        branches := branches || format($made$
    IF present = %3$s THEN {kinds}
    END IF;$made$, home, one.width, one.id);
    END LOOP;
    -- whoever may read the first view may read the others: those of attached tables select from them with their owner's rights
    FOR one IN SELECT format('GRANT SELECT ON {schema}.%I TO %s', v.relname,
                             CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END) AS statement
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g
        JOIN pg_class v ON v.relnamespace = c.relnamespace AND v.relkind = 'v' AND v.relname ~ '^{view}_[0-9]+$'
        WHERE c.relnamespace = '{schema}'::regnamespace AND c.relname = '{view}' AND g.privilege_type = 'SELECT'
          AND g.grantee <> c.relowner AND NOT EXISTS (
              SELECT FROM aclexplode(v.relacl) h WHERE h.grantee = g.grantee AND h.privilege_type = 'SELECT')
    LOOP
        EXECUTE one.statement;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname = 'search'
                   AND p.prosrc NOT LIKE '%{show}()%') THEN
        EXECUTE format($made${nearest}$made$, home, branches);
        EXECUTE format('REVOKE ALL ON FUNCTION {schema}.search(%s.vector, text, integer) FROM PUBLIC', home);
    END IF;
END"""

STATUS_VIEW = """
CREATE OR REPLACE VIEW {schema}.embedding_status AS
SELECT e.vector_id, e.kind, e.row_id, e.dataset_id,
       CASE WHEN e.content_hash IS NULL THEN 'EMPTY'
            WHEN e.embedded_hash = e.content_hash THEN 'READY'
            WHEN e.failed_hash = e.content_hash THEN 'FAILED'
            ELSE 'PENDING' END AS embedding_status,
       CASE WHEN e.embedded_hash IS DISTINCT FROM e.content_hash THEN w.last_error END AS error_message,
       w.attempts, w.not_before, w.lease_until, e.embedded_at
FROM {schema}.embeddings e JOIN {schema}.datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id
LEFT JOIN {schema}.embed_work w ON w.vector_id = e.vector_id AND w.content_hash = e.content_hash
"""


def show_vectors(schema: str) -> str:
    """Return the body of the function that makes the views and `search` for the spaces that there are; `schema` is quoted."""
    kinds = "".join(
        OF_KIND.format(schema=schema, kind=one.kind, table=one.table, dataset=one.dataset, below=EXACT_SEARCH_BELOW)
        for one in EMBEDDABLES
    )
    nearest = NEAREST.format(
        schema=schema,
        show=SHOW,
        chunk=CHUNK.kind,
        names=" ".join(f"WHEN {one.kind} THEN '{one.name}'" for one in EMBEDDABLES),
        texts=" ".join(f"WHEN {one.kind} THEN ({_text(schema, one)})" for one in EMBEDDABLES),
    )
    return SHOW_VECTORS.format(
        schema=schema,
        show=SHOW,
        view=CHUNKS_VIEW,
        chunks=CHUNKS_SHOWN.format(schema=schema, kind=CHUNK.kind),
        present=ONLY_PRESENT.format(schema=schema),
        kinds=kinds,
        nearest=nearest,
    )


def _text(schema: str, embeddable: Embeddable) -> str:
    return f"SELECT {embeddable.text} FROM {schema}.{embeddable.table} r WHERE r.{embeddable.key} = e.row_id"


def install(schema: str) -> Iterator[str]:
    """Return the statements that make what reads the newest tables: to be run after all migrations.

    A restore of the data alone brings spaces of which the tables know nothing yet.
    """
    name = quoted(schema)
    yield (
        f"SELECT {name}.evervec_add_space(s.id) FROM {name}.embedding_spaces s WHERE s.state = 'active' "
        f"OR EXISTS (SELECT FROM {name}.datasets d WHERE d.space_id = s.id) "
        f"OR EXISTS (SELECT FROM {name}.dataset_spaces o WHERE o.space_id = s.id AND o.state <> 'dropped')"
    )
    yield f"SELECT {name}.{SHOW}()"
