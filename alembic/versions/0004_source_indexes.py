"""The indexes of documents and chunks, built while others write. Stopped in the middle it is simply run again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ORDINAL = "chunks_document_id_ordinal_key"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _index("datasets_source_id_idx", "datasets", ["source_id"])
        _index("documents_dataset_id_content_hash_idx", "documents", ["dataset_id", "content_hash"])
        _index("documents_recipe_dataset_id_idx", "documents", ["recipe", "dataset_id"], where="recipe IS NOT NULL")
        _index("documents_waiting_idx", "documents", ["dataset_id", "id"], where="content IS NOT NULL")
        _index("chunks_dataset_id_tokens_idx", "chunks", ["dataset_id", "id"], include=["tokens"])
        _rename("chunks_dataset_id_tokens_idx", "chunks_dataset_id_idx")
        _index("chunks_ordinal_deferred_key", "chunks", ["document_id", "ordinal"], unique=True)
    _ordinal("chunks_ordinal_deferred_key", "DEFERRABLE INITIALLY DEFERRED")
    op.execute("ALTER TABLE documents VALIDATE CONSTRAINT documents_content_hash_sha256")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _index("chunks_ordinal_at_once_key", "chunks", ["document_id", "ordinal"], unique=True)
        _index("chunks_dataset_id_bare_idx", "chunks", ["dataset_id", "id"])
        _rename("chunks_dataset_id_bare_idx", "chunks_dataset_id_idx")
        for name in (
            "documents_waiting_idx",
            "documents_recipe_dataset_id_idx",
            "documents_dataset_id_content_hash_idx",
        ):
            op.drop_index(name, postgresql_concurrently=True, if_exists=True)
        op.drop_index("datasets_source_id_idx", postgresql_concurrently=True, if_exists=True)
    _ordinal("chunks_ordinal_at_once_key", "NOT DEFERRABLE")


def _index(
    name: str,
    table: str,
    columns: list[str],
    *,
    unique: bool = False,
    include: list[str] | None = None,
    where: str | None = None,
) -> None:
    """An index built concurrently; an invalid leftover of a run that was stopped goes first."""
    op.drop_index(name, postgresql_concurrently=True, if_exists=True)
    op.create_index(
        name,
        table,
        columns,
        unique=unique,
        postgresql_concurrently=True,
        postgresql_include=include,
        postgresql_where=None if where is None else sa.text(where),
    )


def _rename(new: str, name: str) -> None:
    """Put a finished index in the place of the old one."""
    op.drop_index(name, postgresql_concurrently=True, if_exists=True)
    op.execute(f"ALTER INDEX {new} RENAME TO {name}")


def _ordinal(index: str, when: str) -> None:
    """The constraint on the new index, in one transaction with the end of the old one."""
    op.execute(f"ALTER TABLE chunks DROP CONSTRAINT {ORDINAL}")
    op.execute(f"ALTER TABLE chunks ADD CONSTRAINT {ORDINAL} UNIQUE USING INDEX {index} {when}")
