"""Circuit breakers of providers in a table of their own, what was learned of a server, and the vectors of health probes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

# providers without a key share a breaker at once; those with one do as soon as they are added again or their keys rotated
ENDPOINTS = """
UPDATE llm_providers SET endpoint = sha256(convert_to(
    concat_ws(chr(10), type, coalesce(rtrim(base_url, '/'), ''), model, ''), 'UTF8'))
WHERE api_key_encrypted IS NULL
"""

OPEN = """
INSERT INTO provider_breakers (endpoint, failures, open_until, code, error)
SELECT DISTINCT ON (endpoint) endpoint, failures, coalesce(paused_until, now()), pause_code, coalesce(pause_error, pause_code)
FROM llm_providers WHERE pause_code IS NOT NULL ORDER BY endpoint, paused_until DESC NULLS LAST
"""


def upgrade() -> None:
    op.create_table(
        "provider_breakers",
        sa.Column("endpoint", sa.LargeBinary, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("trial_owner", postgresql.UUID),
        sa.Column("trial_until", sa.DateTime(timezone=True)),
        sa.CheckConstraint("failures >= 0", name=op.f("provider_breakers_failures_counted")),
        sa.CheckConstraint("(trial_owner IS NULL) = (trial_until IS NULL)", name=op.f("provider_breakers_trial_whole")),
    )
    op.create_table(
        "space_probes",
        sa.Column("space_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("vector", postgresql.ARRAY(sa.REAL), nullable=False),
        sa.Column("model_digest", sa.Text),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.ForeignKeyConstraint(["space_id"], ["embedding_spaces.id"], ondelete="CASCADE"),
    )
    op.add_column(
        "llm_providers",
        sa.Column("endpoint", sa.LargeBinary, nullable=False, server_default=sa.text("uuid_send(gen_random_uuid())")),
    )
    op.add_column(
        "llm_providers",
        sa.Column("refused_options", postgresql.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    )
    op.add_column("llm_providers", sa.Column("request_texts", sa.Integer))
    op.add_column("llm_providers", sa.Column("checked_at", sa.DateTime(timezone=True)))
    op.create_check_constraint(op.f("llm_providers_request_texts_positive"), "llm_providers", "request_texts > 0")
    op.execute(ENDPOINTS)
    op.execute(OPEN)
    for name in ("paused_until", "pause_code", "pause_error", "failures"):
        op.drop_column("llm_providers", name)


def downgrade() -> None:
    op.add_column("llm_providers", sa.Column("paused_until", sa.DateTime(timezone=True)))
    op.add_column("llm_providers", sa.Column("pause_code", sa.Text))
    op.add_column("llm_providers", sa.Column("pause_error", sa.Text))
    op.add_column("llm_providers", sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.execute(
        "UPDATE llm_providers p SET paused_until = b.open_until, pause_code = b.code, pause_error = b.error, "
        "failures = b.failures FROM provider_breakers b WHERE b.endpoint = p.endpoint"
    )
    for name in ("checked_at", "request_texts", "refused_options", "endpoint"):
        op.drop_column("llm_providers", name)
    op.drop_table("space_probes")
    op.drop_table("provider_breakers")
