"""The caller's objects of rows that a search found: one query a class, by the keys that the hits carry."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Text, bindparam, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, aliased

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import Refused
from evervec.store.attached import keys
from evervec.store.attached.rows import chosen
from evervec.store.callers.classes import mapper_of

PARAMETER_MARK = "\0"
"""Stands for the colon of a parameter; no name of PostgreSQL has it."""

Selected = Any
"""A statement of SQLAlchemy for objects and their keys."""


async def by_key(
    session: AsyncSession | Session, given: type[Any], table: AttachedTable, wanted: Sequence[Key]
) -> dict[Key, Any]:
    """Return the objects of rows by key, as the session sees them: one that it does not see is left out.

    A session without `await` works in a thread. Raises `Refused` for anything but a session or a mapped class.
    """
    statement = _select(given, table, wanted)

    def load(session: Session) -> Sequence[Any]:
        # SQLModel's own `execute` warns that its users want another one
        return Session.execute(session, statement).unique().all()

    if isinstance(session, AsyncSession):
        found = await session.run_sync(load)
    elif isinstance(session, Session):
        found = await asyncio.to_thread(load, session)
    else:
        raise Refused(
            reason=f"session is {session!r:.100}. Give an AsyncSession or a Session of SQLAlchemy or SQLModel."
        )
    return {keys.loads(key): one for one, key in found}


def _select(given: type[Any], table: AttachedTable, wanted: Sequence[Key]) -> Selected:
    """Return the query: PostgreSQL itself compares and returns keys in their JSON form, whatever their types are."""
    row: Any = aliased(mapper_of(given).class_, name="r")
    columns = keys.texts(wanted, len(table.key))
    given_by = [bindparam(f"keys_{place}", column, type_=ARRAY(Text)) for place, column in enumerate(columns, 1)]
    # a colon is the mark of a parameter for `text`
    condition = (
        chosen(table, f"CAST({PARAMETER_MARK}keys_{{}} AS text[])".format)
        .replace(":", r"\:")
        .replace(PARAMETER_MARK, ":")
    )
    key = literal_column(f"{keys.json_of(table, 'r')}::text", Text)
    return select(row, key).where(text(condition).bindparams(*given_by))
