"""What columns are made of: types that SQLAlchemy lacks, naming conventions, and the columns that most tables have."""

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, MetaData, text
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.types import UserDefinedType

from evervec.domain.knowledge import AtomType, LinkType, Signal


class Vector(UserDefinedType[bytes]):
    """pgvector's `vector` without a width: the width belongs to the embedding space, which adds its own constraint."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "vector"


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, which never wraps."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "xid8"


metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


def one_of(column: str, values: type[AtomType] | type[LinkType] | type[Signal]) -> str:
    """The condition that a column holds one of an enumeration's values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def id_key() -> Column[int]:
    """A bigint identity as primary key."""
    return Column("id", BigInteger, Identity(), primary_key=True)


def uuid_key() -> Column[object]:
    """A random uuid as primary key."""
    return Column("id", UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()"))


def time(name: str, *, filled: bool = True) -> Column[object]:
    """A point in time; `filled` with now() by itself, or NULL until somebody fills it."""
    default = text("now()") if filled else None
    return Column(name, DateTime(timezone=True), nullable=not filled, server_default=default)


def dataset() -> Column[object]:
    """The dataset that a row belongs to, and goes with."""
    return Column("dataset_id", UUID(as_uuid=True), ForeignKey("datasets.id", ondelete="CASCADE"), nullable=False)
