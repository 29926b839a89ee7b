"""Mapped classes of the caller (SQLModel, SQLAlchemy): the names of their tables and columns."""

from collections.abc import Iterable

from sqlalchemy import Table, inspect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import ClauseElement, ColumnClause

from evervec.errors import Refused
from evervec.store.database.connections import quoted


def mapper_of(given: object) -> Mapper[object]:
    """Return the mapper of a class of one table. Raises `Refused` for anything else."""
    found = inspect(given, raiseerr=False) if isinstance(given, type) else None
    if not isinstance(found, Mapper):
        raise Refused(
            reason=f"{given!r:.100} is no mapped class. Give the class of a table, or the table's name as a text."
        )
    if found.persist_selectable is not found.local_table or not isinstance(found.local_table, Table):
        raise Refused(reason=f"{found.class_.__name__} is not mapped to one table. Give the table's name as a text.")
    return found


def table_of(given: object) -> Table:
    """Return the table of a mapped class, or a table itself. Raises `Refused` for anything else."""
    if isinstance(given, Table):
        return given
    table = mapper_of(given).local_table
    assert isinstance(table, Table)  # see above
    return table


def table_name(given: object) -> str:
    """Return the name of a table as an attachment has it, with its schema if the class names one."""
    if isinstance(given, str):
        return given
    table = table_of(given)
    return ".".join(_part(part) for part in (table.schema, table.name) if part)


def _part(name: str) -> str:
    return quoted(name) if "." in name or name.startswith('"') else name


def column_name(given: object, option: str, value: object) -> str:
    """Return the name of a column, given as a text or as an attribute of the class."""
    if isinstance(value, str):
        return value
    element = element_of(value, option)
    if not isinstance(element, ColumnClause) or not table_of(given).c.contains_column(element):
        raise Refused(reason=f"{option} has {element!s:.200}, which is no column of {table_name(given)}.")
    return str(element.name)


def column_names(given: object, option: str, values: Iterable[object]) -> tuple[str, ...]:
    """Return the names of columns, in their order."""
    if isinstance(values, str):
        raise Refused(reason=f"{option} is a text, {values[:100]!r}. Give a list of columns.")
    return tuple(column_name(given, option, value) for value in values)


def element_of(value: object, option: str) -> ClauseElement:
    """Return the SQL element of an attribute or an expression. Raises `Refused` for anything else."""
    make = getattr(value, "__clause_element__", None)
    element = value if make is None else make()
    if not isinstance(element, ClauseElement):
        raise Refused(
            reason=f"{option} is {value!r:.100}. Give an expression of SQLAlchemy over the class's columns, or SQL as a text."
        )
    return element
