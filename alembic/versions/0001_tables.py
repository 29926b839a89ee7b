"""The first tables."""

from pathlib import Path

from alembic import op

from evervec.store.schema import triggers

revision = "0001"
down_revision = None

TABLES = (
    "vector_tombstones embed_work embeddings llm_providers embedding_spaces chunks documents atom_links atom_sources "
    "atom_versions atoms topics extract_work messages datasets projects"
)


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in triggers.uninstall():
        op.execute(statement)
    op.execute(f"DROP TABLE {', '.join(TABLES.split())}")
