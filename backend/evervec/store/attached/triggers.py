"""The triggers on attached tables, as statements; `capture` installs them.

They run inside the statements of other programs, as those of `store/schema/triggers.py` do: every name has its schema, and a
function runs with our rights and a path of its own. Each records the key of a row, and never reads its text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from evervec.domain.attachment import AttachedTable
from evervec.store.attached.changes import EVERY_ROW
from evervec.store.attached.keys import json_of
from evervec.store.database.connections import quoted

ALWAYS, ORIGIN, REPLICA = "A", "O", "R"
ROW, INSERT, DELETE, UPDATE, TRUNCATE = 1, 4, 8, 16, 32
"""Bits of pg_trigger.tgtype."""

KEYS_TOGETHER = 100
"""Most keys in one record: a record costs the writer more than a key in it does."""

FUNCTION_PREFIX = "evervec_attached_"

RECORD_KEYS = """
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO {changes} (source_id, key) VALUES ({source}, '{every}');
    ELSIF TG_LEVEL = 'STATEMENT' THEN
        IF (SELECT count(*) FROM (SELECT FROM inserted LIMIT 2) two) = 1 THEN
            INSERT INTO {changes} (source_id, key) SELECT {source}, {inserted} FROM inserted;
        ELSE
            INSERT INTO {changes} (source_id, key) SELECT {source}, pg_catalog.jsonb_agg(r.key) FROM (
                SELECT {inserted} AS key, (pg_catalog.row_number() OVER () - 1) / {together} AS part FROM inserted
            ) r GROUP BY r.part;
        END IF;
    ELSE
        IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND record_image_ne({old_row}, {new_row})) THEN
            INSERT INTO {changes} (source_id, key) VALUES ({source}, {old});
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO {changes} (source_id, key) VALUES ({source}, {new});
        END IF;
    END IF;{ring}
    RETURN NULL;
END"""
# NOTIFY takes a lock of the whole server at the commit: one in each second of a session, and workers look on for longer
RING_ONCE_A_SECOND = """
    IF pg_catalog.current_setting('evervec.rang_at', true) IS DISTINCT FROM
       pg_catalog.date_trunc('second', pg_catalog.clock_timestamp())::text THEN
        PERFORM pg_catalog.set_config('evervec.rang_at',
            pg_catalog.date_trunc('second', pg_catalog.clock_timestamp())::text, false);
        PERFORM pg_catalog.pg_notify('{channel}', '');
    END IF;"""


@dataclass(frozen=True)
class CaptureTrigger:
    """A trigger on an attached table: `event` stands before its table, `rest` after it; `enabled` and `type` as in pg_trigger.

    `of` are the columns of its UPDATE, `watched` those that its condition compares.
    """

    name: str
    event: str
    rest: str
    enabled: str
    type: int
    of: frozenset[str] = frozenset()
    watched: frozenset[str] = frozenset()


def function_name(source_id: UUID) -> str:
    """Return the name of the function of an attachment's triggers, and the beginning of theirs."""
    return f"{FUNCTION_PREFIX}{source_id.hex}"


def function_body(schema: str, source_id: UUID, table: AttachedTable, *, rings: bool = False) -> str:
    """Return the body of the function of an attachment's triggers; if it `rings`, its channel is the schema."""
    old_row, new_row = (_record(alias, [column.name for column in table.key]) for alias in ("OLD", "NEW"))
    return RECORD_KEYS.format(
        changes=f"{quoted(schema)}.attached_changes",
        source=f"'{source_id}'",
        every=EVERY_ROW,
        together=KEYS_TOGETHER,
        inserted=json_of(table, "inserted"),
        old=json_of(table, "OLD"),
        new=json_of(table, "NEW"),
        old_row=old_row,
        new_row=new_row,
        ring=RING_ONCE_A_SECOND.format(channel=schema.replace("'", "''")) if rings else "",
    )


def triggers(source_id: UUID, table: AttachedTable, *, related: bool, rewritten: bool) -> Iterator[CaptureTrigger]:
    """Return the triggers of a table.

    A trigger for each statement costs COPY a fraction of one for each row, but does not fire for rows that a subscription
    applies, nor for those written to a partition or a child: there, and where the table is `related` to others, rows are
    recorded one by one. `rewritten` tables have triggers that may change columns which no UPDATE names.
    """
    begin, each = f"evervec_{source_id.hex[:12]}", "FOR EACH ROW"
    watched = list(dict.fromkeys(column.name for column in (*table.key, *table.reads)))
    of = [] if rewritten else watched
    # as bytes: numbers may be equal and have another text, and an operator of an extension does not restore
    changed = f"WHEN (pg_catalog.record_image_ne({_record('OLD', watched)}, {_record('NEW', watched)}))"
    if related:
        yield CaptureTrigger(f"{begin}_inserted", "AFTER INSERT", each, ALWAYS, ROW | INSERT)
    else:
        statement = "REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT"
        yield CaptureTrigger(f"{begin}_inserted", "AFTER INSERT", statement, ORIGIN, INSERT)
        yield CaptureTrigger(f"{begin}_replicated", "AFTER INSERT", each, REPLICA, ROW | INSERT)
    update = f"AFTER UPDATE OF {', '.join(map(quoted, of))}" if of else "AFTER UPDATE"
    yield CaptureTrigger(
        f"{begin}_updated", update, f"{each} {changed}", ALWAYS, ROW | UPDATE, frozenset(of), frozenset(watched)
    )
    yield CaptureTrigger(f"{begin}_deleted", "AFTER DELETE", each, ALWAYS, ROW | DELETE)
    yield CaptureTrigger(f"{begin}_truncated", "AFTER TRUNCATE", "FOR EACH STATEMENT", ALWAYS, TRUNCATE)


def create(schema: str, source_id: UUID, place: str, trigger: CaptureTrigger) -> Iterator[str]:
    """Return the statements that put a trigger on a table."""
    function = f"{quoted(schema)}.{function_name(source_id)}()"
    enable = {ALWAYS: "ENABLE ALWAYS", ORIGIN: "ENABLE", REPLICA: "ENABLE REPLICA"}[trigger.enabled]
    yield f"CREATE TRIGGER {trigger.name} {trigger.event} ON {place} {trigger.rest} EXECUTE FUNCTION {function}"
    yield f"ALTER TABLE {place} {enable} TRIGGER {trigger.name}"


def _record(alias: str, names: list[str]) -> str:
    return f"ROW({', '.join(f'{alias}.{quoted(name)}' for name in names)})"
