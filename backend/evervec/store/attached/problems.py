"""Finds what is wrong with an attached table, its columns, and the triggers on it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from evervec.domain.attachment import AttachedTable
from evervec.store.attached import triggers
from evervec.store.attached.capture import MEMBERS, locate, present
from evervec.store.attached.shape import TABLE_COLUMNS
from evervec.store.attached.triggers import CaptureTrigger, function_body, function_name
from evervec.store.database.session import ReadTx
from evervec.store.schema.integrity import SWITCHED

FUNCTION = """
SELECT prosrc AS body, prosecdef AND proconfig @> ARRAY['search_path=pg_catalog, pg_temp'] AS safe
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2
"""


@dataclass(frozen=True)
class CaptureProblem:
    """What is not as it should be with an attached table; `mendable` by installing its triggers again."""

    table: str
    what: str
    problem: str
    mendable: bool

    def __str__(self) -> str:
        """Return what is wrong and what mends it."""
        advice = (
            "A running worker mends that by itself and compares all rows."
            if self.mendable
            else "Attach it again with `evervec attach`, or remove it with `evervec detach`."
        )
        return f"Table {self.table}: {self.what} {self.problem}. {advice}"


@dataclass(frozen=True)
class CaptureState:
    """An attached table as it is found now, None if it is gone, and what is wrong with its capture."""

    table: AttachedTable | None
    problems: tuple[CaptureProblem, ...]


async def state(tx: ReadTx, schema: str, source_id: UUID, table: AttachedTable, *, rings: bool = False) -> CaptureState:
    """Return the table as it is called now, and what is wrong with it or its triggers."""
    seen = await shape_state(tx, source_id, table)
    found = seen.table
    if found is None or seen.problems:
        return seen
    problems = [
        *await _changed_function(tx, schema, source_id, found, rings=rings),
        *await _changed_triggers(tx, schema, source_id, found),
    ]
    return CaptureState(found, tuple(problems))


async def shape_state(tx: ReadTx, source_id: UUID, table: AttachedTable, *, named_key: bool = False) -> CaptureState:
    """Return the table as it is called now, and what is wrong with its columns; a `named_key` was proved by no index."""
    found = await locate(tx, source_id, table)
    if found is None:
        return CaptureState(None, (CaptureProblem(table.label, "the table", "was dropped", False),))
    return CaptureState(found, tuple(await _lost_columns(tx, found, named_key=named_key)))


async def _lost_columns(tx: ReadTx, table: AttachedTable, *, named_key: bool) -> list[CaptureProblem]:
    """Return the columns that were dropped, renamed, or given another type, and those of the key that may be NULL by now."""
    rows = await tx.fetch(TABLE_COLUMNS, table.oid)
    names = {row["name"]: row["type"] for row in rows}
    renamed = {row["number"]: row["name"] for row in rows}
    empty = {row["name"] for row in rows if not row["filled"]} & {column.name for column in table.key}
    lost = []
    for column in dict.fromkeys((*table.key, *table.reads)):
        if column.name in names and names[column.name] != column.type:
            said = f"has the type {names[column.name]} and not {column.type} any more"
        elif column.name in empty and not named_key:
            said = "is a part of the key and may be NULL by now; rows without a key are left out"
        elif column.name in names:
            continue
        else:
            now = renamed.get(column.number)
            said = "was dropped" if now is None else f"was renamed to {now}"
        lost.append(CaptureProblem(table.label, f"column {column.name}", said, False))
    return lost


async def _changed_function(
    tx: ReadTx, schema: str, source_id: UUID, table: AttachedTable, *, rings: bool
) -> list[CaptureProblem]:
    name = function_name(source_id)
    row = await tx.fetchrow(FUNCTION, schema, name)
    if row is not None and row["safe"] and row["body"] == function_body(schema, source_id, table, rings=rings):
        return []
    return [CaptureProblem(table.label, f"function {name}", "is missing" if row is None else "was changed", True)]


async def _changed_triggers(tx: ReadTx, schema: str, source_id: UUID, table: AttachedTable) -> list[CaptureProblem]:
    there = {(row["oid"], row["name"]): row for row in await present(tx, schema, source_id)}
    problems = []
    for member in await tx.fetch(MEMBERS, table.oid):
        label = f"{member['schema']}.{member['name']}"
        numbers = {row["name"]: row["number"] for row in await tx.fetch(TABLE_COLUMNS, member["oid"])}
        for wanted in triggers.triggers(source_id, table, related=member["related"], rewritten=member["rewritten"]):
            wrong = _wrong(there.pop((member["oid"], wanted.name), None), wanted, numbers)
            if wrong is not None:
                problems.append(CaptureProblem(label, f"trigger {wanted.name}", wrong, True))
    problems += [
        CaptureProblem(f"{row['schema']}.{row['table_name']}", f"trigger {row['name']}", "does not belong there", True)
        for row in there.values()
    ]
    return problems


def _wrong(row: Any | None, wanted: CaptureTrigger, numbers: dict[str, int]) -> str | None:
    """Return what is wrong with a trigger, None if nothing is."""
    if row is None:
        return "is missing"
    columns = {numbers[name] for name in wanted.of}, {numbers[name] for name in wanted.watched}
    if (row["type"], set(row["of"]), set(row["watched"])) != (wanted.type, *columns):
        return "does not fit the table any more"
    return None if row["enabled"] == wanted.enabled else SWITCHED.get(row["enabled"], "is switched on for all sessions")
