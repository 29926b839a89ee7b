"""Mirrors: who holds one, how true it is, what recall was measured; the feed's index without rows that have no vector."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE datasets ADD COLUMN recall_target real, ADD COLUMN feed_from xid8")
    op.create_check_constraint("recall_target_bounded", "datasets", "recall_target > 0 AND recall_target <= 1")
    _mirrors()
    _recall_checks()
    _replace("embeddings_feed_idx", "embeddings_changed_idx", where=sa.text("embedding IS NOT NULL"))


def downgrade() -> None:
    _replace("embeddings_changed_idx", "embeddings_feed_idx")
    op.drop_table("recall_checks")
    op.drop_table("mirrors")
    op.drop_constraint("datasets_recall_target_bounded", "datasets")
    op.execute("ALTER TABLE datasets DROP COLUMN feed_from, DROP COLUMN recall_target")


def _replace(old: str, new: str, where: sa.TextClause | None = None) -> None:
    """One index of the feed for another, while others write; an invalid leftover of an interrupted run goes first."""
    with op.get_context().autocommit_block():
        op.drop_index(new, postgresql_concurrently=True, if_exists=True)
        columns = ["dataset_id", "changed_xid", "vector_id"]
        op.create_index(new, "embeddings", columns, postgresql_concurrently=True, postgresql_where=where)
        op.drop_index(old, postgresql_concurrently=True, if_exists=True)


def _dataset() -> sa.Column[object]:
    return sa.Column("dataset_id", postgresql.UUID, sa.ForeignKey("datasets.id", ondelete="CASCADE"), nullable=False)


def _mirrors() -> None:
    op.create_table(
        "mirrors",
        sa.Column("holder", postgresql.UUID, primary_key=True),
        sa.Column("dataset_id", postgresql.UUID, sa.ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("vectors", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("watermark", sa.Text),
        sa.Column("watermark_at", sa.DateTime(timezone=True)),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("in_sync", sa.Boolean),
        sa.Column("missing", sa.BigInteger),
        sa.Column("extra", sa.BigInteger),
        sa.Column("stale", sa.BigInteger),
        sa.Column("asked", sa.Text),
        sa.Column("asked_at", sa.DateTime(timezone=True)),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('loading', 'building', 'ready', 'dropped', 'failed')", name="state_known"),
        sa.CheckConstraint("asked IN ('check', 'rebuild', 'compact')", name="asked_known"),
        sa.CheckConstraint(
            "num_nulls(checked_at, in_sync, missing, extra, stale) IN (0, 5)", name="checked_whole_or_not"
        ),
    )
    op.create_index("mirrors_dataset_id_idx", "mirrors", ["dataset_id"])


def _recall_checks() -> None:
    op.create_table(
        "recall_checks",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _dataset(),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("recall", sa.REAL, nullable=False),
        sa.Column("target", sa.REAL, nullable=False),
        sa.Column("sampled", sa.Integer, nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("engine IN ('mirror', 'pgvector')", name="engine_known"),
        sa.CheckConstraint("recall BETWEEN 0 AND 1 AND target BETWEEN 0 AND 1", name="recall_bounded"),
    )
    op.create_index(
        "recall_checks_dataset_id_engine_measured_at_idx", "recall_checks", ["dataset_id", "engine", "measured_at"]
    )
