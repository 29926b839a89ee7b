"""Whether the chat model of a provider extracts; those of Gemini and OpenAI described media alone before."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("llm_providers", sa.Column("extracts", sa.Boolean, nullable=False, server_default=sa.true()))
    # nobody pays for an extraction that was not asked for
    op.execute(
        "UPDATE llm_providers SET extracts = false WHERE type IN ('gemini', 'openai') AND chat_model IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_column("llm_providers", "extracts")
