"""What the models are made of: their base class, the naming convention, and the columns that most tables have."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, MetaData, text
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import registry
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field, SQLModel

metadata = MetaData(
    schema="evervec",  # another one is a matter of the engine: schema_translate_map={"evervec": …}
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    },
)

Digest = bytes
"""A SHA-256 digest, 32 bytes."""

ZERO = text("0")


class Model(SQLModel, registry=registry(metadata=metadata)):
    """The base of every table. Its registry is apart from SQLModel's own: a program may have a `Message` of itself."""


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, which never wraps."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the type's name in DDL."""
        return "xid8"


def one_of(name: str, values: Iterable[str]) -> str:
    """Return the condition that a column holds one of these values."""
    return f"{name} IN ({', '.join(repr(str(value)) for value in values)})"


def column(kind: Any, *parts: Any, **options: Any) -> Any:
    """Declare a column that is never NULL."""
    return Field(sa_column=Column(kind, *parts, nullable=False, **options))


def optional(kind: Any, *parts: Any, **options: Any) -> Any:
    """Declare a column that may be NULL."""
    return Field(default=None, sa_column=Column(kind, *parts, nullable=True, **options))


def identity() -> Any:
    """Declare a bigint primary key that counts up."""
    return column(BigInteger, Identity(), primary_key=True)


def random_key() -> Any:
    """Declare a random uuid as primary key."""
    return column(UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()"))


def filled_time() -> Any:
    """Declare a point in time that is now() unless somebody says otherwise."""
    return column(DateTime(timezone=True), server_default=text("now()"))


def optional_time() -> Any:
    """Declare a point in time that is NULL until somebody fills it."""
    return optional(DateTime(timezone=True))


def dataset() -> Any:
    """Declare the dataset that a row belongs to and is deleted with."""
    return column(UUID(as_uuid=True), ForeignKey("datasets.id", ondelete="CASCADE"))
