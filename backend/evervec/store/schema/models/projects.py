"""What rows belong to."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Integer, Text, UniqueConstraint, text
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import ZERO, Model, Xid8, column, filled_time, optional, optional_time, random_key


class Project(Model, table=True):
    """A group of datasets. With `deleted_at` it is gone for everybody; a worker removes its rows afterwards."""

    __tablename__ = "projects"
    __table_args__ = (CheckConstraint("slug <> ''", name="slug_given"),)

    id: UUID = random_key()
    slug: str = column(Text, unique=True)
    name: str = column(Text)
    root_path: str | None = optional(Text)
    created_at: datetime = filled_time()
    deleted_at: datetime | None = optional_time()


class Dataset(Model, table=True):
    """A set of rows that is searched, mirrored and deleted as one.

    `language` is that of its texts, a configuration of PostgreSQL's text search; NULL: its words are not searched. `recall_target` is the recall@10 that its mirror has to reach, `feed_from` the transaction from which on its
    tombstones are complete. `source_id` says what fills it, `tenant` which part of that source it takes. `space_id` is the
    space that is searched (0: there is none yet), `provider_id` who embeds for this dataset; NULL leaves that to the provider of the space used last.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("project_id", "slug"),
        CheckConstraint("slug <> ''", name="slug_given"),
        CheckConstraint("recall_target > 0 AND recall_target <= 1", name="recall_target_bounded"),
    )

    id: UUID = random_key()
    project_id: UUID = column(pg.UUID(as_uuid=True), ForeignKey("projects.id", ondelete="CASCADE"))
    slug: str = column(Text)
    name: str = column(Text)
    created_at: datetime = filled_time()
    deleted_at: datetime | None = optional_time()
    recall_target: float | None = optional(pg.REAL)
    feed_from: int | None = optional(Xid8)
    source_id: UUID | None = optional(pg.UUID(as_uuid=True), ForeignKey("sources.id", ondelete="SET NULL"), index=True)
    tenant: str | None = optional(Text)
    space_id: int = column(Integer, server_default=ZERO)
    provider_id: UUID | None = optional(pg.UUID(as_uuid=True), ForeignKey("llm_providers.id", ondelete="SET NULL"))
    language: str | None = optional(Text, server_default=text("'english'"))
