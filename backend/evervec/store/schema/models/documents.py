"""Documents, and the chunks that hold their text."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import ZERO, Digest, Model, column, dataset, filled_time, identity, optional


class Document(Model, table=True):
    """A document of a dataset, named by its `uri`.

    `content` is a text that still has to be chunked; once its chunks hold it, it is NULL. `recipe` is the version of the
    chunking that made them: a document of another one is chunked again, one without a recipe is left as it is.
    Of a row of an attached table, `key` has the values of its key columns and `fields` those of the declared fields.
    `metadata_` is the column `metadata`, what a caller says of the document: SQLAlchemy has taken the name without `_`.
    """

    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("dataset_id", "uri"),
        CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata_object"),
        Index(None, "dataset_id", "content_hash"),
        Index(None, "recipe", "dataset_id", postgresql_where=text("recipe IS NOT NULL")),
        Index("documents_attached_idx", "uri", postgresql_where=text("key IS NOT NULL")),
        Index("documents_waiting_idx", "dataset_id", "id", postgresql_where=text("content IS NOT NULL")),
    )

    id: int = identity()
    dataset_id: UUID = dataset()
    uri: str = column(Text)
    title: str = column(Text, server_default=text("''"))
    content_hash: Digest | None = optional(LargeBinary)
    version: int = column(Integer, server_default=text("1"))
    created_at: datetime = filled_time()
    updated_at: datetime = filled_time()
    format: str = column(Text, server_default=text("'plain'"))
    stamp: str | None = optional(Text)
    content: str | None = optional(Text)
    recipe: str | None = optional(Text)
    chunk_count: int = column(Integer, server_default=ZERO)
    key: list[Any] | None = optional(pg.JSONB)
    fields: dict[str, Any] | None = optional(pg.JSONB)
    metadata_: dict[str, Any] = column("metadata", pg.JSONB, server_default=text("'{}'"))


class Chunk(Model, table=True):
    """A part of a document: joined by `ordinal`, the `content` of all chunks is the document's text.

    `vector_text` is what is embedded for it, by the template of the space, and `tokens` its estimated size. Each space has
    chunks of its own, cut for its model; those of `space_id` 0, which another program wrote, are of every space.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        # deferred: a paragraph that comes in moves the ordinals of all that follow it
        UniqueConstraint("document_id", "space_id", "ordinal", deferrable=True, initially="DEFERRED"),
        CheckConstraint("ordinal >= 0", name="ordinal_not_negative"),
        CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
        CheckConstraint("line_start >= 1 AND line_end >= line_start", name="lines_in_order"),
        # with the tokens, so that what a full run would send is summed without reading a text
        Index("chunks_dataset_id_idx", "dataset_id", "id", postgresql_include=["tokens"]),
    )

    id: int = identity()
    dataset_id: UUID = dataset()
    document_id: int = column(BigInteger, ForeignKey("documents.id", ondelete="CASCADE"))
    ordinal: int = column(Integer)
    content: str = column(Text)
    vector_text: str = column(Text)
    content_hash: Digest | None = optional(LargeBinary)
    heading: str = column(Text, server_default=text("''"))
    line_start: int | None = optional(Integer)
    line_end: int | None = optional(Integer)
    tokens: int | None = optional(Integer)
    space_id: int = column(Integer, server_default=ZERO)


class ChunkWork(Model, table=True):
    """A document whose chunks for a space have still to be made."""

    __tablename__ = "chunk_work"

    space_id: int = column(Integer, ForeignKey("embedding_spaces.id", ondelete="CASCADE"), primary_key=True)
    document_id: int = column(BigInteger, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, index=True)
