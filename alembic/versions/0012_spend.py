"""The ledger: what was sent to providers each day, what was saved, and what a price list says of each provider."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

COUNTS = ("requests", "texts", "tokens", "told_tokens", "output_tokens")
SAVED = ("reused", "reused_tokens", "unchanged", "unchanged_tokens")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _sum(name: str) -> sa.Column[float]:
    return sa.Column(name, postgresql.DOUBLE_PRECISION, nullable=False, server_default="0")


def upgrade() -> None:
    op.create_table(
        "spend",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("part", sa.SmallInteger, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("dataset_id", postgresql.UUID),
        sa.Column("reason", sa.Text, nullable=False),
        *map(_count, COUNTS),
        _sum("seconds"),
        _sum("usd"),
        _count("unpriced_tokens"),
        *map(_count, SAVED),
        _sum("saved_usd"),
        sa.PrimaryKeyConstraint("id", name="spend_pkey"),
        sa.UniqueConstraint(
            "day", "provider", "model", "dataset_id", "reason", "part",
            name="spend_key", postgresql_nulls_not_distinct=True,
        ),
        sa.CheckConstraint(
            "reason IN ('live', 'backfill', 're-embed', 'query', 'batch', 'extraction', 'probe')",
            name=op.f("spend_reason_known"),
        ),
        postgresql_with={"fillfactor": "70"},
    )  # fmt: skip

    op.add_column("llm_providers", sa.Column("listed_usd", postgresql.DOUBLE_PRECISION))


def downgrade() -> None:
    op.drop_column("llm_providers", "listed_usd")
    op.drop_table("spend")
