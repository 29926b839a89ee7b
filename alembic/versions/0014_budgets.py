"""Budgets: what may be sent to a provider or for a dataset, what was, and the pace that all workers share."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"


def _sum(name: str, kind: type[sa.types.TypeEngine[float]] = postgresql.DOUBLE_PRECISION) -> sa.Column[float]:
    return sa.Column(name, kind, nullable=False, server_default="0")


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("provider_id", postgresql.UUID),
        sa.Column("dataset_id", postgresql.UUID),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("tokens_per_day", sa.BigInteger),
        sa.Column("tokens_per_month", sa.BigInteger),
        sa.Column("usd_per_day", postgresql.DOUBLE_PRECISION),
        sa.Column("usd_per_month", postgresql.DOUBLE_PRECISION),
        sa.Column("share", postgresql.DOUBLE_PRECISION, nullable=False, server_default=sa.text("1")),
        sa.Column("requests", postgresql.DOUBLE_PRECISION),
        sa.Column("tokens", postgresql.DOUBLE_PRECISION),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("slowed_at", sa.DateTime(timezone=True)),
        sa.Column("day", sa.Date),
        _sum("day_tokens", sa.BigInteger),
        _sum("day_usd"),
        sa.Column("month", sa.Date),
        _sum("month_tokens", sa.BigInteger),
        _sum("month_usd"),
        sa.Column("closed_by", sa.Text),
        sa.Column("closed_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="budgets_pkey"),
        sa.UniqueConstraint("provider_id", name="budgets_provider_id_key"),
        sa.UniqueConstraint("dataset_id", name="budgets_dataset_id_key"),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["llm_providers.id"], name="budgets_provider_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="budgets_dataset_id_fkey", ondelete="CASCADE"),
        sa.CheckConstraint("num_nonnulls(provider_id, dataset_id) = 1", name="of_provider_or_dataset"),
        sa.CheckConstraint(
            "dataset_id IS NULL OR num_nonnulls(requests_per_minute, tokens_per_minute) = 0", name="pace_of_provider"
        ),
        sa.CheckConstraint("requests_per_minute > 0 AND tokens_per_minute > 0", name="pace_above_zero"),
        sa.CheckConstraint(
            "tokens_per_day >= 0 AND tokens_per_month >= 0 AND usd_per_day >= 0 AND usd_per_month >= 0",
            name="ceilings_not_negative",
        ),
        sa.CheckConstraint("(closed_by IS NULL) = (closed_until IS NULL)", name="closed_whole_or_not"),
        postgresql_with={"fillfactor": "50"},
    )


def downgrade() -> None:
    op.drop_table("budgets")
