"""How many windows the vector of a long text is made of."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("embeddings", sa.Column("windows", sa.SmallInteger))
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS embeddings_long_idx")
        op.execute(
            "CREATE INDEX CONCURRENTLY embeddings_long_idx ON embeddings (dataset_id, vector_id) WHERE windows IS NOT NULL"
        )


def downgrade() -> None:
    op.drop_column("embeddings", "windows")
