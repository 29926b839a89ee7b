"""The vectors of all kinds of rows, the work of making them, and what is gone."""

from datetime import datetime
from uuid import UUID

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import ZERO, Digest, Model, Xid8, column, filled_time, optional, optional_time
from evervec.store.schema.predicates import PENDING, PENDING_ID


class Embedding(Model, table=True):
    """The vector of one row: `kind` says of which table (1 message, 2 topic, 3 atom, 4 chunk), `row_id` of which row.

    `content_hash` is the digest of the row's text now, `embedded_hash` of the text that `embedding` was made from,
    `failed_hash` of a text that could not be embedded; `pending_id` is generated, the vector id while the row waits. `windows`
    are the parts of a text that was too long to be embedded whole.

    A row has one record for each space of its dataset, with an id of its own; which of them is searched says
    `datasets.space_id`. A vector has the width of its space. The column has none: each space adds a constraint and indexes of
    its own (docs/decisions/0022). There are no foreign keys to datasets and spaces: each would cost a look-up per vector written, and
    a trigger that follows its source row keeps them right (docs/decisions/0002).
    """

    __tablename__ = "embeddings"
    __table_args__ = (
        UniqueConstraint("kind", "row_id", "space_id"),
        CheckConstraint("octet_length(content_hash) = 32", name="content_hash_sha256"),
        CheckConstraint("num_nulls(embedding, embedded_hash, embedded_at) IN (0, 3)", name="embedded_whole_or_not"),
        CheckConstraint("content_hash IS NOT NULL OR embedding IS NULL", name="blank_without_vector"),
        CheckConstraint("failed_hash <> embedded_hash", name="embedded_or_failed"),
        Index(
            "embeddings_pending_idx",
            "dataset_id",
            "space_id",
            "pending_id",
            postgresql_include=["kind"],
            postgresql_where=text(PENDING),
        ),
        # the feed and the check of a mirror both read this index alone; a row without a vector is in neither
        Index(
            "embeddings_changed_idx",
            "dataset_id",
            "space_id",
            "changed_xid",
            "vector_id",
            postgresql_where=text("embedding IS NOT NULL"),
        ),
        Index("embeddings_same_text_idx", "embedded_hash", postgresql_where=text("embedded_hash IS NOT NULL")),
        Index("embeddings_long_idx", "dataset_id", "vector_id", postgresql_where=text("windows IS NOT NULL")),
        Index("embeddings_failed_idx", "dataset_id", "vector_id", postgresql_where=text("failed_hash = content_hash")),
    )

    vector_id: int = column(BigInteger, Identity(always=True), primary_key=True)
    kind: int = column(SmallInteger)
    row_id: int = column(BigInteger)
    dataset_id: UUID = column(pg.UUID(as_uuid=True))
    content_hash: Digest | None = optional(LargeBinary)
    embedding: list[float] | None = optional(VECTOR)
    embedded_hash: Digest | None = optional(LargeBinary)
    space_id: int = column(Integer, server_default=ZERO)
    embedded_at: datetime | None = optional_time()
    failed_hash: Digest | None = optional(LargeBinary)
    changed_xid: int = column(Xid8, server_default=text("pg_current_xact_id()"))
    pending_id: int | None = optional(BigInteger, Computed(PENDING_ID, persisted=True))
    windows: int | None = optional(SmallInteger)


class EmbedWork(Model, table=True):
    """A vector that is being made, waits to be tried again, is left to a batch job (`deferred`), or has failed."""

    __tablename__ = "embed_work"
    __table_args__ = (
        CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_whole_or_not"),
        Index("embed_work_content_hash_idx", "content_hash"),
        Index("embed_work_lease_owner_idx", "lease_owner", postgresql_where=text("lease_owner IS NOT NULL")),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    vector_id: int = column(BigInteger, ForeignKey("embeddings.vector_id", ondelete="CASCADE"), primary_key=True)
    content_hash: Digest = column(LargeBinary)
    attempts: int = column(Integer, server_default=ZERO)
    not_before: datetime = filled_time()
    lease_owner: UUID | None = optional(pg.UUID(as_uuid=True))
    lease_until: datetime | None = optional_time()
    last_code: str | None = optional(Text)
    last_error: str | None = optional(Text)
    deferred: bool = column(Boolean, server_default=false())
    batch_tries: int = column(SmallInteger, server_default=ZERO)


class VectorTombstone(Model, table=True):
    """A vector that was there and is gone, for the mirrors that still have it."""

    __tablename__ = "vector_tombstones"
    __table_args__ = (Index("vector_tombstones_feed_idx", "dataset_id", "deleted_xid", "vector_id"),)

    id: int = column(BigInteger, Identity(always=True), primary_key=True)
    vector_id: int = column(BigInteger)
    dataset_id: UUID = column(pg.UUID(as_uuid=True))
    deleted_xid: int = column(Xid8, server_default=text("pg_current_xact_id()"))
