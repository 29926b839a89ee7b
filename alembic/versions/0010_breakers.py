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

# `public.llm_providers`, the view that a table moved out of `public` left behind, goes on to show when and why
LEFT_VIEW = """
DO $$
DECLARE
    left_behind record;
BEGIN
    FOR left_behind IN
        SELECT v.oid::regclass AS view, (
            SELECT string_agg(CASE a.attname {columns} ELSE 'p.' || quote_ident(a.attname) END, ', ' ORDER BY a.attnum)
            FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attnum > 0
        ) AS columns
        FROM pg_class v
        WHERE v.relkind = 'v' AND v.relname = 'llm_providers' AND EXISTS (
            SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            WHERE r.ev_class = v.oid AND d.refobjid = 'llm_providers'::regclass)
    LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS SELECT %s FROM %I.llm_providers p',
            left_behind.view, left_behind.columns, current_schema());
    END LOOP;
END $$
"""
BREAKER_OF = {"paused_until": "open_until", "pause_code": "code", "pause_error": "error", "failures": "failures"}


def left_view(shown: dict[str, str]) -> str:
    """Return what lets the view that stayed in `public`, if there is one, show something else in these columns."""
    return LEFT_VIEW.format(
        columns=" ".join(
            f"WHEN '{column}' THEN format($sql${sql} AS {column}$sql$, current_schema())"
            for column, sql in shown.items()
        )
    )


OF_BREAKERS = left_view(
    {
        column: f"(SELECT b.{shown} FROM %I.provider_breakers b WHERE b.endpoint = p.endpoint)"
        for column, shown in BREAKER_OF.items()
    }
)
OF_PROVIDERS = left_view({column: f"p.{column}" for column in BREAKER_OF})


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
    op.execute(OF_BREAKERS)
    for name in BREAKER_OF:
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
    op.execute(OF_PROVIDERS)
    for name in ("checked_at", "request_texts", "refused_options", "endpoint"):
        op.drop_column("llm_providers", name)
    op.drop_table("space_probes")
    op.drop_table("provider_breakers")
