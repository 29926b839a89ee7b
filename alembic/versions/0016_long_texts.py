"""How many windows the vector of a long text is made of."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute("ALTER TABLE embeddings ADD COLUMN IF NOT EXISTS windows smallint")
    with op.get_context().autocommit_block():
        # what the migration before could not look at while everybody waited
        op.execute("ALTER TABLE embeddings VALIDATE CONSTRAINT embeddings_embedded_whole_or_not")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS embeddings_long_idx")
        op.execute(
            "CREATE INDEX CONCURRENTLY embeddings_long_idx ON embeddings (dataset_id, vector_id) WHERE windows IS NOT NULL"
        )


def downgrade() -> None:
    op.drop_column("embeddings", "windows")
