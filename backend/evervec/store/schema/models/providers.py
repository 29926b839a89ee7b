"""Providers, and the embedding spaces that they serve."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
    literal,
    text,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.documents.chunking import CHUNK_TOKENS, LEAST_TOKENS, TEMPLATE
from evervec.domain.vendors import TYPES
from evervec.store.schema.columns import (
    ZERO,
    Model,
    Xid8,
    column,
    filled_time,
    one_of,
    optional,
    optional_time,
    random_key,
)


class EmbeddingSpace(Model, table=True):
    """What vectors can be compared within: provider type, model, width, and how a text is made and cut for it.

    One is `active`: the default, which new datasets get. `template` makes the vector text of a chunk, which has
    `chunk_tokens` at most; `text_tokens` is what the model takes.
    """

    __tablename__ = "embedding_spaces"
    __table_args__ = (
        UniqueConstraint("provider", "model", "dimensions", "metric", "template", "chunk_tokens", name="embedding_spaces_identity"),
        # 4,000 is the widest halfvec that pgvector can index.
        CheckConstraint("dimensions BETWEEN 1 AND 4000", name="dimensions_indexable"),
        CheckConstraint("metric = 'cosine'", name="metric_known"),
        CheckConstraint("state IN ('ready', 'active')", name="state_known"),
        CheckConstraint("state <> 'active' OR activated_at IS NOT NULL", name="active_since"),
        CheckConstraint(f"chunk_tokens >= {LEAST_TOKENS}", name="chunk_tokens_enough"),
        Index("embedding_spaces_one_active", "state", unique=True, postgresql_where=text("state = 'active'")),
    )

    id: int = column(Integer, Identity(), primary_key=True)
    provider: str = column(Text)
    model: str = column(Text)
    dimensions: int = column(Integer)
    metric: str = column(Text, server_default=text("'cosine'"))
    state: str = column(Text, server_default=text("'ready'"))
    created_at: datetime = filled_time()
    activated_at: datetime | None = optional_time()
    template: str = column(Text, server_default=literal(TEMPLATE))
    chunk_tokens: int = column(Integer, server_default=literal(CHUNK_TOKENS))
    text_tokens: int | None = optional(Integer)


class LlmProvider(Model, table=True):
    """Who embeds and, with a `chat_model`, extracts. Until `paused_until` no worker calls it: all share the pause.

    `dimensions` is the width that the model is asked for; NULL takes the model's own.
    """

    __tablename__ = "llm_providers"
    __table_args__ = (
        CheckConstraint("usd_per_million_tokens >= 0", name="price_not_negative"),
        CheckConstraint(one_of("type", TYPES), name="type_known"),
        CheckConstraint("name <> '' AND model <> ''", name="name_given"),
    )

    id: UUID = random_key()
    name: str = column(Text, unique=True)
    type: str = column(Text)
    base_url: str | None = optional(Text)
    model: str = column(Text)
    chat_model: str | None = optional(Text)
    api_key_encrypted: bytes | None = optional(LargeBinary)
    space_id: int = column(Integer, ForeignKey("embedding_spaces.id"))
    created_at: datetime = filled_time()
    used_at: datetime = filled_time()
    paused_until: datetime | None = optional_time()
    pause_code: str | None = optional(Text)
    pause_error: str | None = optional(Text)
    failures: int = column(Integer, server_default=ZERO)
    usd_per_million_tokens: float | None = optional(pg.DOUBLE_PRECISION)
    dimensions: int | None = optional(Integer)


class DatasetSpace(Model, table=True):
    """A space that a dataset has beside the one that is searched: every change is written to it, too.

    `next` is being filled, to be activated; `previous` was searched before, and is kept for a rollback; one that is `dropped`
    is written to no more, and is gone as soon as its vectors are removed. `automatic` is
    activated by itself once every row has its vector. `started_xid` is the transaction that began it: rows of older ones
    are taken in once those have ended.
    """

    __tablename__ = "dataset_spaces"
    __table_args__ = (
        CheckConstraint("state IN ('next', 'previous', 'dropped')", name="state_known"),
        Index(
            "dataset_spaces_one_of_a_state",
            "dataset_id",
            "state",
            unique=True,
            postgresql_where=text("state <> 'dropped'"),
        ),
    )

    dataset_id: UUID = column(pg.UUID(as_uuid=True), ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    space_id: int = column(Integer, ForeignKey("embedding_spaces.id"), primary_key=True)
    provider_id: UUID | None = optional(pg.UUID(as_uuid=True), ForeignKey("llm_providers.id", ondelete="SET NULL"))
    state: str = column(Text)
    automatic: bool = column(Boolean, server_default=false())
    created_at: datetime = filled_time()
    started_xid: int = column(Xid8, server_default=text("pg_current_xact_id()"))
    taken_in_at: datetime | None = optional_time()
    indexed_at: datetime | None = optional_time()
