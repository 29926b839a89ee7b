"""Rows of the batch lane that must not exist, by the constraint that refuses each; what else is impossible lives beside."""

JOB = (
    "INSERT INTO batch_jobs (id, model, job_type, status, external_id, submitting_at, finished_at, cleaned_at, error) "
    "VALUES (gen_random_uuid(), 'm', {})"
)
OPEN = "NULL, NULL, NULL, NULL, NULL"
ITEM = "INSERT INTO batch_items (job_id, vector_id, key, content_hash) {}"
MEDIA = (
    "INSERT INTO media (document_id, dataset_id, path, media_type, bytes, content_hash, failed_hash, error, job_id) "
    "SELECT {} FROM documents"
)

IMPOSSIBLE = {
    "batch_jobs_pkey": "INSERT INTO batch_jobs (id, model, job_type) "
    "SELECT '00000000-0000-0000-0000-000000000000', 'm', 'EMBEDDING' FROM generate_series(1, 2)",
    "batch_jobs_job_type_known": JOB.format(f"'DREAM', 'CREATED', {OPEN}"),
    "batch_jobs_status_known": JOB.format("'EMBEDDING', 'LOST', NULL, NULL, now(), NULL, NULL"),
    "batch_jobs_submitted_with_id": JOB.format(f"'EMBEDDING', 'SUBMITTED', {OPEN}"),
    "batch_jobs_finished_or_not": JOB.format("'EMBEDDING', 'CREATED', NULL, NULL, now(), NULL, NULL"),
    "batch_jobs_failed_with_reason": JOB.format("'EMBEDDING', 'FAILED', NULL, NULL, now(), NULL, NULL"),
    "batch_jobs_asked_before_told": JOB.format("'EMBEDDING', 'SUBMITTED', 'remote', NULL, NULL, NULL, NULL"),
    "batch_jobs_cleaned_at_the_end": JOB.format("'EMBEDDING', 'CREATED', NULL, NULL, NULL, now(), NULL"),
    "batch_jobs_provider_id_fkey": "INSERT INTO batch_jobs (id, model, job_type, provider_id) "
    "VALUES (gen_random_uuid(), 'm', 'EMBEDDING', gen_random_uuid())",
    "batch_items_job_id_fkey": ITEM.format("VALUES (gen_random_uuid(), 1, 'k', '\\x00')"),
    "batch_items_pkey": "WITH j AS (" + JOB.format(f"'EMBEDDING', 'CREATED', {OPEN}") + " RETURNING id) "
    + ITEM.format("SELECT id, 1, 'k', '\\x00'::bytea FROM j, generate_series(1, 2)"),
    "media_content_hash_sha256": MEDIA.format("id, dataset_id, '/p', 'image/png', 1, '\\x00'::bytea, NULL, NULL, NULL"),
    "media_failed_with_reason": MEDIA.format("id, dataset_id, '/p', 'image/png', 1, sha256('a'), sha256('a'), NULL, NULL"),
    "media_document_id_fkey": MEDIA.format("10000 + id, dataset_id, '/p', 'image/png', 1, sha256('a'), NULL, NULL, NULL"),
    "media_dataset_id_fkey": MEDIA.format("id, gen_random_uuid(), '/p', 'image/png', 1, sha256('a'), NULL, NULL, NULL"),
    "media_job_id_fkey": MEDIA.format("id, dataset_id, '/p', 'image/png', 1, sha256('a'), NULL, NULL, gen_random_uuid()"),
}  # fmt: skip
