"""The table of articles."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "articles",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("title", sa.String, sa.CheckConstraint("title <> ''", name="articles_title_check"), nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("section", sa.String, nullable=False),
        schema="newsroom",
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("articles", schema="newsroom")
