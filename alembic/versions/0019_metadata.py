"""What a caller says of a document beside its text."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    # with a constant as default no row is rewritten
    op.execute(
        "ALTER TABLE documents ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}', "
        "ADD CONSTRAINT documents_metadata_object CHECK (jsonb_typeof(metadata) = 'object')"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE documents DROP COLUMN metadata")
