"""Providers of type onnx, and how the model of a folder is run."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column(
        "llm_providers", sa.Column("encoder", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'"))
    )
    _types("'local', 'onnx', 'ollama', 'gemini', 'openai'")


def downgrade() -> None:
    op.execute("DELETE FROM llm_providers WHERE type = 'onnx'")
    _types("'local', 'ollama', 'gemini', 'openai'")
    op.drop_column("llm_providers", "encoder")


def _types(known: str) -> None:
    """What a provider may be."""
    op.execute(
        "ALTER TABLE llm_providers DROP CONSTRAINT llm_providers_type_known, "
        f"ADD CONSTRAINT llm_providers_type_known CHECK (type IN ({known}))"
    )
