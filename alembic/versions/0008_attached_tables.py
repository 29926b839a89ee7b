"""Tables that are embedded in place: changes that their triggers record, rows that failed, keys of their documents."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

# their triggers would refuse every write to the tables of others
DETACH = """
DO $$
DECLARE
    tracker regprocedure;
BEGIN
    FOR tracker IN SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'attached\\_%'
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', tracker);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute("ALTER TABLE documents ADD COLUMN key jsonb, ADD COLUMN fields jsonb")
    _allow("'files', 'sql', 'attached'")
    op.create_table(
        "attached_changes",
        sa.Column("source_id", postgresql.UUID, nullable=False),
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("key", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("source_id", "id", "changed_at", name="attached_changes_pkey"),
    )
    op.create_table(
        "attached_failures",
        sa.Column("source_id", postgresql.UUID, nullable=False),
        sa.Column("key", postgresql.JSONB, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("dataset_id", postgresql.UUID),
        sa.PrimaryKeyConstraint("source_id", "key", name="attached_failures_pkey"),
        sa.UniqueConstraint("id", name="attached_failures_id_key"),
        sa.ForeignKeyConstraint(
            ["source_id"], ["sources.id"], name="attached_failures_source_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("attached_failures_dataset_id_idx", "attached_failures", ["dataset_id"])
    op.create_index("documents_attached_idx", "documents", ["uri"], postgresql_where=sa.text("key IS NOT NULL"))


def downgrade() -> None:
    op.execute(DETACH)
    op.drop_table("attached_failures")
    op.drop_table("attached_changes")
    op.execute("DELETE FROM sources WHERE type = 'attached'")
    _allow("'files', 'sql'")
    op.execute("ALTER TABLE documents DROP COLUMN key, DROP COLUMN fields")


def _allow(types: str) -> None:
    op.execute(
        "ALTER TABLE sources DROP CONSTRAINT sources_type_known, "
        f"ADD CONSTRAINT sources_type_known CHECK (type IN ({types}))"
    )
