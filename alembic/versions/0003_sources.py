"""Sources, the runs that index them, and the place of every chunk. Indexes come with 0004, while others write."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

COUNTS = [
    "documents_new",
    "documents_changed",
    "documents_unchanged",
    "documents_moved",
    "documents_deleted",
    "documents_skipped",
    "chunks_new",
    "chunks_updated",
    "chunks_skipped",
    "chunks_deleted",
    "texts_sent",
    "embeddings_generated",
    "embeddings_reused",
    "requests",
    "tokens",
    "full_texts",
    "full_tokens",
]
SECONDS = ["seconds_list", "seconds_read", "seconds_chunk", "seconds_write", "seconds_embed", "seconds_total"]


def upgrade() -> None:
    _sources()
    _index_runs()
    op.add_column("datasets", sa.Column("source_id", postgresql.UUID))
    op.add_column("datasets", sa.Column("tenant", sa.Text))
    op.create_foreign_key("datasets_source_id_fkey", "datasets", "sources", ["source_id"], ["id"], ondelete="SET NULL")
    _documents()
    _chunks()
    _spaces()


def downgrade() -> None:
    op.drop_column("llm_providers", "usd_per_million_tokens")
    op.execute("ALTER TABLE embedding_spaces DROP COLUMN template, DROP COLUMN chunk_tokens, DROP COLUMN text_tokens")
    op.execute(
        "ALTER TABLE chunks DROP COLUMN content_hash, DROP COLUMN heading, DROP COLUMN line_start, "
        "DROP COLUMN line_end, DROP COLUMN tokens"
    )
    op.drop_constraint("documents_content_hash_sha256", "documents")
    op.execute(
        "ALTER TABLE documents DROP COLUMN format, DROP COLUMN stamp, DROP COLUMN content, DROP COLUMN recipe, "
        "DROP COLUMN chunk_count"
    )
    op.execute("ALTER TABLE datasets DROP COLUMN source_id, DROP COLUMN tenant")
    op.drop_table("index_runs")
    op.drop_table("sources")


def _sources() -> None:
    op.create_table(
        "sources",
        sa.Column("id", postgresql.UUID, primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("project_id", postgresql.UUID, sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("spec", postgresql.JSONB, nullable=False),
        sa.Column("url_encrypted", sa.LargeBinary),
        sa.Column("cursor", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'")),
        _time("created_at"),
        _time("synced_at", filled=False),
        sa.UniqueConstraint("project_id", "name"),
        sa.CheckConstraint("name <> ''", name="name_given"),
        sa.CheckConstraint("type IN ('files', 'sql')", name="type_known"),
    )


def _index_runs() -> None:
    numbers = [sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in COUNTS]
    numbers += [sa.Column(name, sa.Double, nullable=False, server_default="0") for name in SECONDS]
    op.create_table(
        "index_runs",
        sa.Column("id", postgresql.UUID, primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("dataset_id", postgresql.UUID, sa.ForeignKey("datasets.id", ondelete="CASCADE"), nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="queued"),
        sa.Column("changed", postgresql.JSONB),
        sa.Column("scope", postgresql.ARRAY(sa.Text)),
        sa.Column("embeds", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("cursor", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _time("not_before"),
        _time("created_at"),
        _time("started_at", filled=False),
        _time("finished_at", filled=False),
        *numbers,
        sa.Column("cost_usd", sa.Double),
        sa.Column("full_cost_usd", sa.Double),
        sa.Column("skipped", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("examples", postgresql.JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("mode IN ('delta', 'compare', 'full')", name="mode_known"),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name="state_known"),
        sa.CheckConstraint("(mode = 'delta') = (changed IS NOT NULL)", name="delta_with_ids"),
        sa.CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished_or_not"),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_with_reason"),
        sa.Index("index_runs_one_running", "dataset_id", unique=True, postgresql_where=sa.text("state = 'running'")),
        sa.Index("index_runs_one_queued", "dataset_id", unique=True, postgresql_where=sa.text("state = 'queued'")),
        sa.Index("index_runs_dataset_id_created_at_idx", "dataset_id", "created_at"),
    )


def _documents() -> None:
    op.execute(
        "ALTER TABLE documents ADD COLUMN format text NOT NULL DEFAULT 'plain', ADD COLUMN stamp text, "
        "ADD COLUMN content text, ADD COLUMN recipe text, ADD COLUMN chunk_count integer NOT NULL DEFAULT 0"
    )
    op.execute(
        "ALTER TABLE documents ADD CONSTRAINT documents_content_hash_sha256 CHECK (octet_length(content_hash) = 32) NOT VALID"
    )


def _chunks() -> None:
    op.execute(
        "ALTER TABLE chunks ADD COLUMN content_hash bytea, ADD COLUMN heading text NOT NULL DEFAULT '', "
        "ADD COLUMN line_start integer, ADD COLUMN line_end integer, ADD COLUMN tokens integer"
    )
    op.create_check_constraint("content_hash_sha256", "chunks", "octet_length(content_hash) = 32")
    op.create_check_constraint("lines_in_order", "chunks", "line_start >= 1 AND line_end >= line_start")


def _spaces() -> None:
    op.execute(
        "ALTER TABLE embedding_spaces ADD COLUMN template text NOT NULL DEFAULT E'{title} › {heading}\\n\\n{text}', "
        "ADD COLUMN chunk_tokens integer NOT NULL DEFAULT 256, ADD COLUMN text_tokens integer"
    )
    op.create_check_constraint("chunk_tokens_enough", "embedding_spaces", "chunk_tokens >= 32")
    op.execute("ALTER TABLE llm_providers ADD COLUMN usd_per_million_tokens double precision")
    op.create_check_constraint("price_not_negative", "llm_providers", "usd_per_million_tokens >= 0")


def _time(name: str, *, filled: bool = True) -> sa.Column[object]:
    default = sa.func.now() if filled else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not filled, server_default=default)
