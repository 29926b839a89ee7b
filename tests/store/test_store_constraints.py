"""Rows that must not exist: PostgreSQL refuses each, whoever tries."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.store import impossible_batches

ATOM = "INSERT INTO atoms (dataset_id, type, title, content, confidence, version) SELECT id, {} FROM datasets"
MESSAGE = (
    "INSERT INTO messages (dataset_id, chat, external_id, author, content, revision, score, signal, score_factors, "
    "scored_revision, extracted_revision) SELECT id, {} FROM datasets"
)
SPACE = "INSERT INTO embedding_spaces (provider, model, dimensions, metric, state, activated_at) VALUES ({})"
WORK = "INSERT INTO embed_work (vector_id, content_hash, lease_owner, lease_until) SELECT vector_id, '\\x00', {} FROM embeddings LIMIT 1"
EXTRACT = (
    "INSERT INTO extract_work (message_id, revision, lease_owner, lease_until, dead_at) SELECT id, 1, {} FROM messages"
)
MIRROR = (
    "INSERT INTO mirrors (holder, dataset_id, space_id, host, folder, pid, state, asked, checked_at, in_sync) "
    "SELECT gen_random_uuid(), id, 1, 'h', '/f', 1, {} FROM datasets"
)
OTHER_SPACE = "INSERT INTO dataset_spaces (dataset_id, space_id, state) SELECT id, 1, {} FROM datasets"
RECALL = "INSERT INTO recall_checks (dataset_id, engine, recall, target, sampled) SELECT id, {}, 10 FROM datasets"
SOURCE = "INSERT INTO sources (project_id, name, type, spec) SELECT id, {}, '{{}}' FROM projects"
RUN = "INSERT INTO index_runs (dataset_id, mode, state, changed, finished_at, error, trigger) SELECT id, {}, 't' FROM datasets"
RUNNING, QUEUED = (
    "'full', 'running', NULL::jsonb, NULL::timestamptz, NULL",
    "'full', 'queued', NULL::jsonb, NULL::timestamptz, NULL",
)
PROVIDER = "INSERT INTO llm_providers (name, type, model, space_id) VALUES ({})"

IMPOSSIBLE = {
    "projects_slug_given": "INSERT INTO projects (slug, name) VALUES ('', 'x')",
    "projects_slug_key": "INSERT INTO projects (slug, name) VALUES ('river', 'x')",
    "datasets_slug_given": "UPDATE datasets SET slug = ''",
    "datasets_project_id_slug_key": "INSERT INTO datasets (project_id, slug, name) SELECT project_id, slug, 'x' FROM datasets",
    "datasets_project_id_fkey": "UPDATE datasets SET project_id = gen_random_uuid()",
    "messages_dataset_id_chat_external_id_key": "INSERT INTO messages (dataset_id, chat, external_id, author, content) "
    "SELECT dataset_id, chat, external_id, 'x', 'x' FROM messages",
    "messages_dataset_id_fkey": "UPDATE messages SET dataset_id = gen_random_uuid()",
    "messages_signal_known": MESSAGE.format("'c', '9', 'a', 't', 1, 0.5, 'loud', '{}', 1, NULL"),
    "messages_score_bounded": MESSAGE.format("'c', '9', 'a', 't', 1, 1.5, 'noise', '{}', 1, NULL"),
    "messages_scored_whole_or_not": MESSAGE.format("'c', '9', 'a', 't', 1, 0.5, NULL, NULL, 1, NULL"),
    "messages_revision_not_ahead": MESSAGE.format("'c', '9', 'a', 't', 1, 0.5, 'noise', '{}', 2, NULL"),
    "topics_name_given": "INSERT INTO topics (dataset_id, name) SELECT id, '' FROM datasets",
    "topics_dataset_id_name_key": "INSERT INTO topics (dataset_id, name) SELECT dataset_id, upper(name) FROM topics",
    "atoms_type_known": ATOM.format("'rumour', 't', 'c', 0.5, 1"),
    "atoms_confidence_bounded": ATOM.format("'idea', 't', 'c', 1.1, 1"),
    "atoms_version_positive": ATOM.format("'idea', 't', 'c', 0.5, 0"),
    "atoms_topic_id_fkey": "UPDATE atoms SET topic_id = 10000",
    "atom_versions_type_known": "INSERT INTO atom_versions (atom_id, version, type, title, content, confidence) "
    "SELECT id, 1, 'rumour', 't', 'c', 0.5 FROM atoms",
    "atom_links_type_known": "INSERT INTO atom_links SELECT id, 'hates', id + 1, 0.5 FROM atoms",
    "atom_links_not_to_itself": "INSERT INTO atom_links SELECT id, 'solves', id, 0.5 FROM atoms",
    "atom_links_confidence_bounded": "INSERT INTO atom_links SELECT id, 'solves', id + 1, -1 FROM atoms",
    "atom_links_target_id_fkey": "INSERT INTO atom_links SELECT id, 'solves', 10000, 0.5 FROM atoms",
    "atom_sources_message_id_fkey": "INSERT INTO atom_sources SELECT id, 10000 FROM atoms",
    "documents_dataset_id_uri_key": "INSERT INTO documents (dataset_id, uri) SELECT dataset_id, uri FROM documents",
    "chunks_ordinal_not_negative": "UPDATE chunks SET ordinal = -1",
    "chunks_document_id_space_id_ordinal_key": "INSERT INTO chunks (dataset_id, document_id, ordinal, content, vector_text) "
    "SELECT dataset_id, document_id, ordinal, 'x', 'x' FROM chunks",
    "chunks_content_hash_sha256": "UPDATE chunks SET content_hash = '\\x00'",
    "chunks_lines_in_order": "UPDATE chunks SET line_start = 2, line_end = 1",
    "documents_content_hash_sha256": "UPDATE documents SET content_hash = '\\x00'",
    "sources_name_given": SOURCE.format("'', 'files'"),
    "sources_type_known": SOURCE.format("'s', 'oracle'"),
    "sources_project_id_name_key": "INSERT INTO sources (project_id, name, type, spec) SELECT id, n, 'sql', '{}' "
    "FROM projects, (VALUES ('s'), ('s')) v (n)",
    "index_runs_mode_known": RUN.format("'half', 'queued', NULL, NULL, NULL"),
    "index_runs_state_known": RUN.format("'full', 'lost', NULL, now(), NULL"),
    "index_runs_delta_with_ids": RUN.format("'delta', 'queued', NULL, NULL, NULL"),
    "index_runs_finished_or_not": RUN.format("'full', 'done', NULL, NULL, NULL"),
    "index_runs_failed_with_reason": RUN.format("'full', 'failed', NULL, now(), NULL"),
    "index_runs_one_running": f"{RUN.format(RUNNING)} UNION ALL SELECT id, {RUNNING}, 't' FROM datasets",
    "index_runs_one_queued": f"{RUN.format(QUEUED)} UNION ALL SELECT id, {QUEUED}, 't' FROM datasets",
    "embedding_spaces_chunk_tokens_enough": "INSERT INTO embedding_spaces (provider, model, dimensions, chunk_tokens) "
    "VALUES ('p', 'm', 4, 31)",
    "llm_providers_price_not_negative": "INSERT INTO llm_providers (name, type, model, space_id, usd_per_million_tokens) "
    "VALUES ('n', 'local', 'm', 1, -1)",
    "embedding_spaces_dimensions_indexable": SPACE.format("'p', 'm', 4001, 'cosine', 'ready', NULL"),
    "embedding_spaces_metric_known": SPACE.format("'p', 'm', 4, 'manhattan', 'ready', NULL"),
    "embedding_spaces_state_known": SPACE.format("'p', 'm', 4, 'cosine', 'perhaps', NULL"),
    "embedding_spaces_active_since": SPACE.format("'p', 'm', 4, 'cosine', 'active', NULL"),
    "embedding_spaces_identity": SPACE.format(
        "'p', 'm', 4, 'cosine', 'ready', NULL), ('p', 'm', 4, 'cosine', 'ready', NULL"
    ),
    "embedding_spaces_one_active": SPACE.format("'p', 'm', 4, 'cosine', 'active', now()), ('p', 'm', 5, 'cosine', 'active', now()"),
    "llm_providers_type_known": PROVIDER.format("'n', 'oracle', 'm', 1"),
    "llm_providers_name_given": PROVIDER.format("'', 'local', 'm', 1"),
    "llm_providers_space_id_fkey": PROVIDER.format("'n', 'local', 'm', 10000"),
    "embeddings_kind_row_id_space_id_key": "INSERT INTO embeddings (kind, row_id, dataset_id, content_hash, embedding, "
    "embedded_hash, space_id, embedded_at) SELECT kind, row_id, dataset_id, content_hash, embedding, embedded_hash, space_id, "
    "embedded_at FROM embeddings",
    "embeddings_content_hash_sha256": "UPDATE embeddings SET content_hash = '\\x00'",
    "embeddings_embedded_whole_or_not": "UPDATE embeddings SET embedded_at = NULL",
    "embeddings_blank_without_vector": "INSERT INTO embeddings (kind, row_id, dataset_id, embedding, embedded_hash, space_id, "
    "embedded_at) SELECT 9, 9, id, '[1]', '\\x00', 1, now() FROM datasets",
    "embeddings_embedded_or_failed": "UPDATE embeddings SET failed_hash = embedded_hash",
    "embed_work_lease_whole_or_not": WORK.format("gen_random_uuid(), NULL"),
    "dataset_spaces_state_known": OTHER_SPACE.format("'old'"),
    "dataset_spaces_space_id_fkey": "INSERT INTO dataset_spaces (dataset_id, space_id, state) SELECT id, 9999, 'next' FROM datasets",
    "dataset_spaces_one_of_a_state": "INSERT INTO dataset_spaces (dataset_id, space_id, state) SELECT d.id, s.id, 'next' FROM datasets d, (VALUES (1), (2)) s (id)",
    "datasets_provider_id_fkey": "UPDATE datasets SET provider_id = gen_random_uuid()",
    "embed_work_vector_id_fkey": "INSERT INTO embed_work (vector_id, content_hash) VALUES (10000, '\\x00')",
    "chunk_work_document_id_fkey": "WITH made AS (INSERT INTO embedding_spaces (provider, model, dimensions) "
    "VALUES ('ollama', 'beside', 4) RETURNING id) INSERT INTO chunk_work (space_id, document_id) SELECT id, 9999 FROM made",
    "chunk_work_space_id_fkey": "INSERT INTO chunk_work (space_id, document_id) SELECT 9999, id FROM documents",
    "datasets_recall_target_bounded": "UPDATE datasets SET recall_target = 0",
    "mirrors_state_known": MIRROR.format("'dreaming', NULL, NULL, NULL"),
    "mirrors_asked_known": MIRROR.format("'ready', 'dance', NULL, NULL"),
    "mirrors_checked_whole_or_not": MIRROR.format("'ready', NULL, now(), NULL"),
    "mirrors_dataset_id_fkey": "INSERT INTO mirrors (holder, dataset_id, space_id, host, folder, pid, state) "
    "VALUES (gen_random_uuid(), gen_random_uuid(), 1, 'h', '/f', 1, 'ready')",
    "recall_checks_engine_known": RECALL.format("'oracle', 1, 0.98"),
    "recall_checks_recall_bounded": RECALL.format("'mirror', 1.01, 0.98"),
    "extract_work_lease_whole_or_not": EXTRACT.format("NULL, now(), NULL"),
    "extract_work_dead_with_reason": EXTRACT.format("NULL, NULL, now()"),
    "extract_work_message_id_fkey": "INSERT INTO extract_work (message_id, revision) VALUES (10000, 1)",
}  # fmt: skip


@pytest.fixture
async def tried(furnished: str) -> AsyncIterator[Any]:
    """Connect to a database with a row in every table; roll back whatever a test does there."""
    connection = await asyncpg.connect(furnished)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.mark.parametrize("constraint", IMPOSSIBLE)
async def test_an_impossible_row_is_refused_by_name(tried: Any, constraint: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await tried.execute(IMPOSSIBLE[constraint])
        await tried.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert refused.value.constraint_name == constraint


@pytest.mark.parametrize("column", ["pending_id", "vector_id"])
async def test_what_the_database_derives_is_set_by_nobody(tried: Any, column: str) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await tried.execute(f"UPDATE embeddings SET {column} = 1")


async def test_every_check_constraint_has_its_test(tried: Any) -> None:
    rows = await tried.fetch(
        "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype = 'c'"
    )
    assert {row["conname"] for row in rows} <= {*IMPOSSIBLE, *impossible_batches.IMPOSSIBLE}
