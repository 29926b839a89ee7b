"""Finds new and changed rows without anything of ours in the table's database: by `xmin`, or by a column of times.

Each look is one read-only snapshot. A position says up to where everything was found, and is kept with the attachment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from evervec.domain.attachment import AttachedColumn, AttachedTable, Key
from evervec.store.attached.keys import json_of, loads, texts, value_of
from evervec.store.attached.rows import reading, relation
from evervec.store.attached.shape import TIMES
from evervec.store.database.connections import quoted
from evervec.store.database.session import ReadTx

XIDS: Final = 2**32
"""Transaction ids in a row; the server counts on in 64 bits."""
OLDEST_XIDS: Final = 2**30
"""Ids after which a position moves on although nothing was found; beyond twice as many a row's age can not be told."""

OVERLAP_SECONDS: Final = 60.0
"""How long a transaction may be open, and still be found by its time at once; also later it is found by a comparison."""
OVERLAP_LOOK_SECONDS: Final = 5.0

UNTIL: Final = {TIMES[0]: "pg_catalog.now()", TIMES[1]: "localtimestamp + interval '1 day'"}
"""Later times are not seen yet: a single wrong one would hide whatever is written before it."""
CLOCK: Final = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"


@dataclass(frozen=True)
class Position:
    """Up to where a table was looked at; moments are seconds of its server's clock.

    By `xmin`: every transaction below `since` was seen, and `seen` is the fingerprint of the rows that later ones had written; a
    pass that is under way ends with `then` and `late`. By time: every row up to
    the time `at`, and the key `key`. `after` is the last row of a pass: its time, if there is one, and its key.
    """

    compared_at: float
    since: int = 0
    seen: str = "0/0"
    then: int | None = None
    late: str = "0/0"
    at: str | None = None
    key: Key | None = None
    advanced_at: float = 0.0
    repeated_at: float = 0.0
    after_time: str | None = None
    after: Key | None = None

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Position":
        """Return a position from its stored form."""
        lists = {name: tuple(stored[name]) for name in ("key", "after") if stored.get(name) is not None}
        return cls(**dict(stored) | lists)

    def dump(self) -> dict[str, Any]:
        """Return the form in which it is stored."""
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """What a look found: keys of rows, and the position after them. `everything` asks to read all rows again."""

    keys: Sequence[Key]
    position: Position
    everything: bool = False


async def clock(tx: ReadTx) -> float:
    """Return the seconds of the server's clock."""
    moment: float = await tx.fetchval(CLOCK)
    return moment


# --- by xmin -------------------------------------------------------------------------------------------------------

SNAPSHOT = """
SELECT pg_snapshot_xmin(s)::text::bigint AS oldest, pg_snapshot_xmax(s)::text::bigint AS next FROM pg_current_snapshot() s
"""


async def begin_by_xmin(tx: ReadTx) -> Position:
    """Return the position before the rows are taken in that are there now."""
    row = await tx.fetchrow(SNAPSHOT)
    assert row is not None  # a function always has a row
    return Position(await clock(tx), since=row["oldest"])


async def any_by_xmin(tx: ReadTx, table: AttachedTable, position: Position) -> bool:
    """Return whether a look would find anything. It reads the head of every row: there is no index on `xmin`."""
    row = await tx.fetchrow(SNAPSHOT)
    assert row is not None
    passed = row["next"] - position.since
    if position.then is not None or not 0 <= passed < OLDEST_XIDS:
        return True
    return await _fingerprint_of(tx, table, position.since, row["next"]) != position.seen


async def look_by_xmin(tx: ReadTx, table: AttachedTable, position: Position, limit: int) -> Look:
    """Return the next rows of a pass, in the order of their keys, that transactions since the position have written.

    A pass ends where the oldest transaction that was open when it began may still write: whoever commits late is found by
    the next one.
    """
    row = await tx.fetchrow(SNAPSHOT)
    assert row is not None
    passed = row["next"] - position.since
    if not 0 <= passed < 2 * OLDEST_XIDS:  # another server, or one that was not looked at for very long
        return Look((), replace(position, since=row["oldest"], then=None, after=None), everything=True)
    if position.then is None:
        if passed < OLDEST_XIDS and await _fingerprint_of(tx, table, position.since, row["next"]) == position.seen:
            return Look((), position)
        # these are read in this pass, and again only if one of them has changed: its writer may be open for long
        late = await _fingerprint_of(tx, table, row["oldest"], row["next"])
        position = replace(position, then=row["oldest"], late=late)
    beyond, given = _beyond(table, position.after, 4)
    columns = ", ".join(f"r.{quoted(column.name)}" for column in table.key)
    sql = (
        f"SELECT {json_of(table, 'r')}::text AS key FROM {relation(table)} r WHERE {_written('$2', '$3')}{beyond} "
        f"ORDER BY {columns} LIMIT $1"
    )
    async with reading(tx, table):
        keys = [loads(one["key"]) for one in await tx.fetch(sql, limit, position.since % XIDS, passed, *given)]
    if len(keys) == limit:
        return Look(keys, replace(position, after=keys[-1]))
    since = position.since if position.then is None else position.then
    return Look(keys, replace(position, since=since, seen=position.late, then=None, after=None))


async def _fingerprint_of(tx: ReadTx, table: AttachedTable, since: int, following: int) -> str:
    """Return a fingerprint of the rows that transactions from `since` on have written: which rows, and by whom."""
    sql = (
        f"SELECT count(*) || '/' || coalesce(sum(hashtextextended(r.xmin::text || {json_of(table, 'r')}::text, 0)), 0) "
        f"FROM {relation(table)} r WHERE {_written('$1', '$2')}"
    )
    async with reading(tx, table):
        return str(await tx.fetchval(sql, since % XIDS, following - since))


def _written(since: str, passed: str) -> str:
    """Return the condition that a row was written by one of the last `passed` transactions; ids wrap around."""
    xid = "r.xmin::text::bigint"
    return f"{xid} > 2 AND mod({xid} - {since}::bigint + {XIDS}, {XIDS}) < {passed}::bigint"


def _beyond(table: AttachedTable, after: Key | None, first: int) -> tuple[str, list[str]]:
    if after is None:
        return "", []
    columns = ", ".join(f"r.{quoted(column.name)}" for column in table.key)
    values = ", ".join(value_of(column.type, f"${place}::text") for place, column in enumerate(table.key, first))
    return f" AND ({columns}) > ({values})", [column[0] for column in texts([after], len(table.key))]


# --- by time -------------------------------------------------------------------------------------------------------


async def begin_by_time(tx: ReadTx, table: AttachedTable, column: AttachedColumn) -> Position:
    """Return the position before the rows are taken in that are there now."""
    now = await clock(tx)
    newest = await _rows_by_time(tx, table, column, None, None, 1, newest=True)
    found = newest[0] if newest else (None, None)
    return Position(now, at=found[0], key=found[1], advanced_at=now, repeated_at=now)


async def any_by_time(tx: ReadTx, table: AttachedTable, column: AttachedColumn, position: Position) -> bool:
    """Return whether a look would find anything new, or has to repeat what may have been committed late."""
    return _repeats(position, await clock(tx)) or bool(
        await _rows_by_time(tx, table, column, position.at, position.key, 1)
    )


async def look_by_time(
    tx: ReadTx, table: AttachedTable, column: AttachedColumn, position: Position, limit: int
) -> Look:
    """Return the next rows with a later time, or those of the last minute again while a transaction may commit late.

    A row has the time at which its transaction began, and becomes visible when that ends.
    """
    now = await clock(tx)
    if position.after_time is None and not _repeats(position, now):
        found = await _rows_by_time(tx, table, column, position.at, position.key, limit)
        if found:
            at, key = found[-1]
            position = replace(position, at=at, key=key, advanced_at=now)
        return Look([key for _, key in found], position)
    if position.at is None:
        return Look((), replace(position, repeated_at=now))
    begin, after = position.after_time, position.after
    if begin is None:
        begin = await tx.fetchval(_back(column), position.at, OVERLAP_SECONDS)
    found = await _rows_by_time(tx, table, column, begin, after, limit)
    done = len(found) < limit
    if not done:
        position = replace(position, after_time=found[-1][0], after=found[-1][1])
    else:
        position = replace(position, after_time=None, after=None, repeated_at=now)
        if found and found[-1] != (position.at, position.key):
            position = replace(position, at=found[-1][0], key=found[-1][1], advanced_at=now)
    return Look([key for _, key in found], position)


def _repeats(position: Position, now: float) -> bool:
    """Return whether rows of the last minute are to be read again; not once nothing was new for longer than that."""
    if position.after_time is not None:
        return True
    is_due = now - position.repeated_at >= OVERLAP_LOOK_SECONDS
    return is_due and position.repeated_at < position.advanced_at + OVERLAP_SECONDS


def _shown_time(column: AttachedColumn) -> str:
    return f"(pg_catalog.jsonb_build_array({_plain(column, f'r.{quoted(column.name)}')}) ->> 0)"


def _plain(column: AttachedColumn, value: str) -> str:
    return f"pg_catalog.timezone('UTC', {value})" if column.type == TIMES[0] else value


def _back(column: AttachedColumn) -> str:
    """Return the query for a time that is so many seconds earlier."""
    return f"SELECT pg_catalog.jsonb_build_array({_plain(column, value_of(column.type, '$1::text'))} - make_interval(secs => $2)) ->> 0"


async def _rows_by_time(
    tx: ReadTx,
    table: AttachedTable,
    column: AttachedColumn,
    at: str | None,
    key: Key | None,
    limit: int,
    *,
    newest: bool = False,
) -> list[tuple[str, Key]]:
    """Return time and key of rows after a time and a key, in this order; with `newest` from the end."""
    name = f"r.{quoted(column.name)}"
    columns = [name, *(f"r.{quoted(one.name)}" for one in table.key)]
    given: list[object] = [limit]
    beyond = f"{name} IS NOT NULL"
    if at is not None:
        given.append(at)
        moment = value_of(column.type, "$2::text")
        beyond = f"{name} >= {moment}"
        if key is not None:
            values = [value_of(one.type, f"${place}::text") for place, one in enumerate(table.key, 3)]
            beyond += f" AND ({', '.join(columns)}) > ({', '.join([moment, *values])})"
            given += [one[0] for one in texts([key], len(table.key))]
    order = ", ".join(f"{one} DESC" if newest else one for one in columns)
    sql = (
        f"SELECT {_shown_time(column)} AS at, {json_of(table, 'r')}::text AS key FROM {relation(table)} r "
        f"WHERE {beyond} AND {name} <= {UNTIL[column.type]} ORDER BY {order} LIMIT $1"
    )
    async with reading(tx, table):
        return [(row["at"], loads(row["key"])) for row in await tx.fetch(sql, *given)]
