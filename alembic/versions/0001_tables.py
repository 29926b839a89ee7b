"""The first tables."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    "vector_tombstones embed_work embeddings llm_providers embedding_spaces chunks documents atom_links atom_sources "
    "atom_versions atoms topics extract_work messages datasets projects"
)
FUNCTIONS = (
    "evervec_vector_changed evervec_vector_deleted evervec_message_revised "
    "evervec_track_messages evervec_track_topics evervec_track_atoms evervec_track_chunks"
)


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    for statement in Path(__file__).with_suffix(".sql").read_text().split(";\n"):
        if statement.strip():
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.execute("DROP VIEW IF EXISTS embedding_status")
    for function in FUNCTIONS.split():
        op.execute(f"DROP FUNCTION IF EXISTS {function}() CASCADE")
    op.execute(f"DROP TABLE {', '.join(TABLES.split())}")
