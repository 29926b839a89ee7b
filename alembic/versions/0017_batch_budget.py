"""The tokens that a batch job has taken from the budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("batch_jobs", sa.Column("budget_tokens", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("batch_jobs", "budget_tokens")
