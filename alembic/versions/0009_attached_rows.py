"""Names and datasets of failed rows of attached tables, and an index that finds the document of a row in any dataset."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("attached_failures", sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False))
    op.add_column("attached_failures", sa.Column("dataset_id", postgresql.UUID))
    op.create_unique_constraint("attached_failures_id_key", "attached_failures", ["id"])
    op.create_index("attached_failures_dataset_id_idx", "attached_failures", ["dataset_id"])
    op.create_index("documents_attached_idx", "documents", ["uri"], postgresql_where=sa.text("key IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("documents_attached_idx")
    op.execute("ALTER TABLE attached_failures DROP COLUMN id, DROP COLUMN dataset_id")
