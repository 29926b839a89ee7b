"""Providers of the types fastembed and sentence-transformers."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    _types("'local', 'onnx', 'fastembed', 'sentence-transformers', 'ollama', 'gemini', 'openai'")


def downgrade() -> None:
    op.execute("DELETE FROM llm_providers WHERE type IN ('fastembed', 'sentence-transformers')")
    _types("'local', 'onnx', 'ollama', 'gemini', 'openai'")


def _types(known: str) -> None:
    """What a provider may be."""
    op.execute(
        "ALTER TABLE llm_providers DROP CONSTRAINT llm_providers_type_known, "
        f"ADD CONSTRAINT llm_providers_type_known CHECK (type IN ({known}))"
    )
