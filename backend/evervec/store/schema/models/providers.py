"""Providers, and the embedding spaces that they serve."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    REAL,
    Boolean,
    CheckConstraint,
    DateTime,
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
    true,
)
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.documents.chunking import CHUNK_TOKENS, LEAST_TOKENS, TEMPLATE
from evervec.domain.vectors import WIDEST
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
        UniqueConstraint(
            "provider", "model", "dimensions", "metric", "template", "chunk_tokens", name="embedding_spaces_identity"
        ),
        CheckConstraint(f"dimensions BETWEEN 1 AND {WIDEST}", name="dimensions_indexable"),
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
    """Who embeds and, with a `chat_model` and unless `extracts` is false, scores and extracts.

    `endpoint` is the digest of address, key and model, which its circuit breaker belongs to. `dimensions` is the width
    that the model is asked for; NULL takes the model's own. `encoder` is what was given of how the model gets its
    texts: `{"folder", "file", "pooling", "query_prefix", "document_prefix", "text_tokens", "task_types"}`, or none of it. Learned from the
    server: `refused_options`, the options of a request that it refuses, and `request_texts`, the most texts that it takes
    in one. `checked_at` is the time of the last health check.
    `listed_usd` is what a price list says of a million tokens, `usd_per_million_tokens` the operator's own word.
    """

    __tablename__ = "llm_providers"
    __table_args__ = (
        CheckConstraint("usd_per_million_tokens >= 0", name="price_not_negative"),
        CheckConstraint(one_of("type", TYPES), name="type_known"),
        CheckConstraint("name <> '' AND model <> ''", name="name_given"),
        CheckConstraint("request_texts > 0", name="request_texts_positive"),
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
    usd_per_million_tokens: float | None = optional(pg.DOUBLE_PRECISION)
    dimensions: int | None = optional(Integer)
    listed_usd: float | None = optional(pg.DOUBLE_PRECISION)
    encoder: dict[str, Any] = column(pg.JSONB, server_default=text("'{}'"))
    extracts: bool = column(Boolean, server_default=true())
    endpoint: bytes = column(LargeBinary, server_default=text("uuid_send(gen_random_uuid())"))
    refused_options: list[str] = column(pg.ARRAY(Text), server_default=text("'{}'"))
    request_texts: int | None = optional(Integer)
    checked_at: datetime | None = optional_time()


class ProviderBreaker(Model, table=True):
    """The open circuit breaker of an endpoint, for all workers; no row means that it is closed.

    Nothing is claimed for it until `open_until`. Then one worker, `trial_owner`, tries it until `trial_until`.
    """

    __tablename__ = "provider_breakers"
    __table_args__ = (
        CheckConstraint("failures >= 0", name="failures_counted"),
        CheckConstraint("(trial_owner IS NULL) = (trial_until IS NULL)", name="trial_whole"),
    )

    endpoint: bytes = column(LargeBinary, primary_key=True)
    failures: int = column(Integer, server_default=ZERO)
    open_until: datetime = column(DateTime(timezone=True))
    code: str = column(Text)
    error: str = column(Text)
    opened_at: datetime = filled_time()
    trial_owner: UUID | None = optional(pg.UUID(as_uuid=True))
    trial_until: datetime | None = optional_time()


class SpaceProbe(Model, table=True):
    """The vector that a known text had when a space was first checked, and the digest of the model if the server tells one."""

    __tablename__ = "space_probes"

    space_id: int = column(
        Integer, ForeignKey("embedding_spaces.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    vector: list[float] = column(pg.ARRAY(REAL))
    model_digest: str | None = optional(Text)
    made_at: datetime = filled_time()


class DatasetSpace(Model, table=True):
    """A space that a dataset has beside the one that is searched: every change is written to it, too.

    `next` is being filled, to be activated; `previous` was searched before, and is kept for a rollback; one that is `dropped`
    is written to no more, and is gone as soon as its vectors are removed. An `automatic` one is activated by itself once
    every row has its vector. Transactions before `seen_xid` may not know of its state; NULL until somebody saw that committed.
    With `batch_hours` the rows that are there wait so long for batch jobs, from `marked_at` on.
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
    seen_xid: int | None = optional(Xid8)
    taken_in_at: datetime | None = optional_time()
    indexed_at: datetime | None = optional_time()
    batch_hours: float | None = optional(pg.DOUBLE_PRECISION)
    marked_at: datetime | None = optional_time()
