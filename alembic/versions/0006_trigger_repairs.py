"""Tables whose triggers were found missing or switched off: their rows are compared with the records again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "trigger_repairs",
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS evervec_vector_restored() CASCADE")
    op.execute("DROP FUNCTION IF EXISTS evervec_accept_space(integer), evervec_index_space(integer)")
    op.drop_table("trigger_repairs")
