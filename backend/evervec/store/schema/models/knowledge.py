"""What is extracted from messages: topics, atoms with their versions and sources, and the links between atoms."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, Text, text
from sqlalchemy.dialects import postgresql as pg

from evervec.domain.extraction.knowledge import AtomType, LinkType
from evervec.store.schema.columns import Model, column, dataset, filled_time, identity, one_of, optional


class Topic(Model, table=True):
    """What messages are about. Names differ by more than upper and lower case within a dataset."""

    __tablename__ = "topics"
    __table_args__ = (
        CheckConstraint("name <> ''", name="name_given"),
        Index("topics_dataset_id_name_key", "dataset_id", text("lower(name)"), unique=True),
    )

    id: int = identity()
    dataset_id: UUID = dataset()
    name: str = column(Text)
    description: str = column(Text, server_default=text("''"))
    created_at: datetime = filled_time()
    updated_at: datetime = filled_time()


class Atom(Model, table=True):
    """One piece of knowledge, as it is now; `type` is one of `AtomType`."""

    __tablename__ = "atoms"
    __table_args__ = (
        CheckConstraint(one_of("type", AtomType), name="type_known"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_bounded"),
        CheckConstraint("version >= 1", name="version_positive"),
        Index("atoms_dataset_id_idx", "dataset_id", "id"),
    )

    id: int = identity()
    dataset_id: UUID = dataset()
    topic_id: int | None = optional(BigInteger, ForeignKey("topics.id", ondelete="SET NULL"), index=True)
    type: str = column(Text)
    title: str = column(Text)
    content: str = column(Text)
    confidence: float = column(pg.REAL)
    version: int = column(Integer, server_default=text("1"))
    created_at: datetime = filled_time()
    updated_at: datetime = filled_time()


class AtomVersion(Model, table=True):
    """An atom as it was written once; the newest version is equal to the atom."""

    __tablename__ = "atom_versions"
    __table_args__ = (CheckConstraint(one_of("type", AtomType), name="type_known"),)

    atom_id: int = column(BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True)
    version: int = column(Integer, primary_key=True)
    type: str = column(Text)
    title: str = column(Text)
    content: str = column(Text)
    confidence: float = column(pg.REAL)
    created_at: datetime = filled_time()


class AtomSource(Model, table=True):
    """A message that an atom was extracted from."""

    __tablename__ = "atom_sources"

    atom_id: int = column(BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True)
    message_id: int = column(BigInteger, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True, index=True)


class AtomLink(Model, table=True):
    """What one atom is to another; `type` is one of `LinkType`."""

    __tablename__ = "atom_links"
    __table_args__ = (
        CheckConstraint(one_of("type", LinkType), name="type_known"),
        CheckConstraint("source_id <> target_id", name="not_to_itself"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_bounded"),
    )

    source_id: int = column(BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True)
    type: str = column(Text, primary_key=True)
    target_id: int = column(BigInteger, ForeignKey("atoms.id", ondelete="CASCADE"), primary_key=True, index=True)
    confidence: float = column(pg.REAL)
    created_at: datetime = filled_time()
