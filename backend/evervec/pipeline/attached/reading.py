"""Rows of an attached table are read by key; those for which an expression fails are found, and stop none of the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from evervec.domain.attachment import AttachedTable, Key
from evervec.errors import RowsUnreadableError
from evervec.store.attached import rows
from evervec.store.attached.rows import AttachedRow
from evervec.store.database.session import Database


@dataclass
class Reading:
    """What was read: rows by key, why others can not be read, and the keys that are left for the next time."""

    rows: dict[Key, AttachedRow] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)
    unread: list[Key] = field(default_factory=list)


async def read_rows(
    database: Database, table: AttachedTable, keys: Sequence[Key], *, most_bytes: int, together_bytes: int
) -> Reading:
    """Read rows by key; if the expression fails for some of them, halve the keys until these are alone.

    A text of more than `most_bytes` is left out, and rows from where texts are more than `together_bytes` are left unread.
    Raises what the table raises if it can not be read at all.
    """
    if not keys:
        return Reading()
    sizes = {"most_bytes": most_bytes, "together_bytes": together_bytes}
    try:
        async with database.read() as tx:
            found = await rows.read(tx, table, keys, **sizes)
    except RowsUnreadableError as error:
        if len(keys) == 1:
            return Reading(failed={keys[0]: str(error.values["reason"])})
        half = len(keys) // 2
        first = await read_rows(database, table, keys[:half], **sizes)
        if first.unread:
            first.unread += keys[half:]
            return first
        second = await read_rows(database, table, keys[half:], **sizes)
        return Reading(first.rows | second.rows, first.failed | second.failed, second.unread)
    return Reading(dict(found.rows), {}, list(found.unread))
