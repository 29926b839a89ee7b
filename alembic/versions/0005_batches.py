"""Jobs of provider batch APIs, what they hold of which rows, and media that wait to be described."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

STATUSES = "'CREATED', 'SUBMITTED', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED'"
COUNTS = ["rows", "texts", "ready", "failed", "dropped", "returned", "strays", "listings"]


def upgrade() -> None:
    _jobs()
    _items()
    _media()
    op.add_column("embed_work", sa.Column("deferred", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("embed_work", sa.Column("batch_tries", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("index_runs", sa.Column("deferred", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("llm_providers", sa.Column("dimensions", sa.Integer))
    _types("'local', 'ollama', 'gemini', 'openai'")


def downgrade() -> None:
    _types("'local', 'ollama'")
    op.drop_column("llm_providers", "dimensions")
    op.drop_column("index_runs", "deferred")
    op.execute("ALTER TABLE embed_work DROP COLUMN deferred, DROP COLUMN batch_tries")
    for table in ("media", "batch_items", "batch_jobs"):
        op.drop_table(table)


def _types(known: str) -> None:
    """What a provider may be; one that is not among these any more is there no longer."""
    op.execute(f"DELETE FROM llm_providers WHERE type NOT IN ({known})")
    op.execute(
        "ALTER TABLE llm_providers DROP CONSTRAINT llm_providers_type_known, "
        f"ADD CONSTRAINT llm_providers_type_known CHECK (type IN ({known}))"
    )


def _jobs() -> None:
    op.create_table(
        "batch_jobs",
        sa.Column("id", postgresql.UUID, primary_key=True),
        sa.Column("job_type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default="CREATED"),
        sa.Column("provider_id", postgresql.UUID),
        sa.Column("space_id", sa.Integer),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text),
        sa.Column("input_file", sa.Text),
        *(sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in COUNTS),
        sa.Column("tokens", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("usd_per_million_tokens", postgresql.DOUBLE_PRECISION),
        sa.Column("said", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("submitting_at", sa.DateTime(timezone=True)),
        sa.Column("submitted_at", sa.DateTime(timezone=True)),
        sa.Column("deadline", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("cleaned_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["llm_providers.id"], name="batch_jobs_provider_id_fkey", ondelete="SET NULL"
        ),
        sa.CheckConstraint("job_type IN ('EMBEDDING', 'MEDIA_DESCRIPTION')", name="job_type_known"),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="status_known"),
        sa.CheckConstraint(
            "status NOT IN ('SUBMITTED', 'PROCESSING', 'COMPLETED') OR external_id IS NOT NULL",
            name="submitted_with_id",
        ),
        sa.CheckConstraint(
            "(status IN ('CREATED', 'SUBMITTED', 'PROCESSING')) = (finished_at IS NULL)",
            name="finished_or_not",
        ),
        sa.CheckConstraint("status <> 'FAILED' OR error IS NOT NULL", name="failed_with_reason"),
        sa.CheckConstraint("external_id IS NULL OR submitting_at IS NOT NULL", name="asked_before_told"),
        sa.CheckConstraint("cleaned_at IS NULL OR finished_at IS NOT NULL", name="cleaned_at_the_end"),
    )
    op.create_index("batch_jobs_open_idx", "batch_jobs", ["created_at"], postgresql_where=sa.text("cleaned_at IS NULL"))
    op.create_index("batch_jobs_provider_id_idx", "batch_jobs", ["provider_id"])


def _items() -> None:
    op.create_table(
        "batch_items",
        sa.Column("job_id", postgresql.UUID, nullable=False),
        sa.Column("vector_id", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "vector_id", name="batch_items_pkey"),
        sa.ForeignKeyConstraint(["job_id"], ["batch_jobs.id"], name="batch_items_job_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("batch_items_job_id_key_idx", "batch_items", ["job_id", "key"])


def _media() -> None:
    op.create_table(
        "media",
        sa.Column("document_id", sa.BigInteger, primary_key=True),
        sa.Column("dataset_id", postgresql.UUID, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("described_hash", sa.LargeBinary),
        sa.Column("failed_hash", sa.LargeBinary),
        sa.Column("error", sa.Text),
        sa.Column("job_id", postgresql.UUID),
        sa.Column("tries", sa.SmallInteger, nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name="media_document_id_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="media_dataset_id_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["batch_jobs.id"], name="media_job_id_fkey", ondelete="SET NULL"),
        sa.CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
        sa.CheckConstraint("failed_hash IS NULL OR error IS NOT NULL", name="failed_with_reason"),
    )
    op.create_index("media_dataset_id_idx", "media", ["dataset_id"])
    op.create_index("media_job_id_idx", "media", ["job_id"])
