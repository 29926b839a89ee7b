"""Expressions of SQLAlchemy over a caller's class become SQL over the columns of its table, with their values in it."""

from datetime import date, time, timedelta
from typing import Any

from sqlalchemy import Table, column, literal_column
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, ColumnClause
from sqlalchemy.sql.selectable import FromClause, SelectBase

from evervec.errors import Refused
from evervec.store.callers.classes import element_of, table_name, table_of


class _Dialect(PGDialect):
    """PostgreSQL without a driver: percent signs stay single, and a backslash is a character as any other."""

    supports_statement_cache = True
    _backslash_escapes = False


DIALECT: Dialect = _Dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy has no annotations here


def sql_of(given: object, option: str, value: object) -> str | None:
    """Return an expression as SQL with columns by their bare names. A text is SQL already.

    Raises `Refused` for what can not be written so: a parameter without a value, a value without a literal, a column of
    another table or of an alias, a subquery.
    """
    if value is None or isinstance(value, str):
        return value
    element: Any = element_of(value, option)
    if isinstance(given, str):
        raise Refused(
            reason=f"{option} is an expression, and {given!r} is a name. Give the mapped class, or SQL as a text."
        )
    table = table_of(given)
    for part in visitors.iterate(element):
        _require_own(table, option, part)
    bare = visitors.replacement_traverse(element, {}, _bare)
    try:
        return str(bare.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))
    except CompileError as error:
        said = str(error).partition(";")[0].partition("\n")[0]
        raise Refused(reason=f"{option} can not be written as SQL: {said}. Give it as a text.") from error


def _require_own(table: Table, option: str, part: Any) -> None:
    if isinstance(part, SelectBase):
        raise Refused(
            reason=f"{option} has a subquery; a change in another row would go unnoticed. Use the columns of one row."
        )
    if isinstance(part, ColumnClause) and isinstance(part.table, FromClause) and not table.c.contains_column(part):
        raise Refused(
            reason=f"{option} reads {part.table.description}.{part.name}, which is no column of {table_name(table)}. "
            "Use the columns of one row."
        )
    if isinstance(part, BindParameter) and part.required and part.callable is None:
        raise Refused(reason=f"{option} has the parameter :{part.key} without a value. Write the value in its place.")


def _bare(element: Any, **_: Any) -> Any:
    """Return what stands in place of an element: a column without its table, a moment as PostgreSQL reads it in any session."""
    if isinstance(element, ColumnClause) and element.table is not None:
        return column(element.name, element.type)
    if isinstance(element, BindParameter) and isinstance(element.value, date | time | timedelta):
        shown = (
            f"{element.value.total_seconds()} seconds"
            if isinstance(element.value, timedelta)
            else element.value.isoformat()
        )
        return literal_column(f"'{shown}'", element.type)
    return None
