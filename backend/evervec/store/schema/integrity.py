"""Whether our triggers and functions are in the database as they are declared, and their repair.

A restore may leave them out, `ENABLE TRIGGER USER` makes an ALWAYS trigger an ORIGIN one, and anybody may drop or replace
them. Then rows are written that nobody notices, so a repair also has the rows of the table compared with their records.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from evervec.store.database.session import ReadTx, Tx
from evervec.store.schema import triggers
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable
from evervec.store.schema.words import WORDS_FUNCTION

REPAIR_LOCK_SECONDS = 2
"""Longest wait for a table that somebody else has locked; the next pass tries again."""

SWITCHED = {"D": "is switched off", "O": "is off for replicas and restores", "R": "is off for everybody but replicas"}

TRIGGERS = """
SELECT c.relname AS table_name, t.tgname AS name, t.tgenabled::text AS enabled, p.proname AS function
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace = $1::regnamespace AND p.pronamespace = c.relnamespace AND NOT t.tgisinternal
"""
# with quote_all_identifiers, PostgreSQL keeps a path in quotation marks
FUNCTIONS = """
SELECT proname AS name, prosrc AS body,
       prosecdef AND 'search_path=pg_catalog, pg_temp' IN (SELECT replace(one, '"', '') FROM unnest(proconfig) one) AS safe
FROM pg_proc WHERE pronamespace = $1::regnamespace
"""
UNCOMPARED = "SELECT table_name, reason FROM trigger_repairs ORDER BY table_name"


@dataclass(frozen=True)
class TriggerProblem:
    """A trigger or function of a table that is not as it should be: rows of the table may go unnoticed."""

    table: str
    name: str
    problem: str

    def __str__(self) -> str:
        """Return what is wrong and who mends it."""
        return (
            f"Table {self.table}: {self.name} {self.problem}. A running worker mends that by itself and takes in what was "
            "missed; `evervec migrate` does so at once."
        )


async def problems(tx: ReadTx, schema: str) -> list[TriggerProblem]:
    """Return what is wrong with our triggers and functions, and the tables whose rows are still to be compared."""
    waiting = [
        TriggerProblem(table, "some rows", f"may be unknown, because {reason}")
        for table, reason in (await uncompared(tx)).items()
    ]
    return [*await defects(tx, schema), *waiting]


async def defects(tx: ReadTx, schema: str) -> list[TriggerProblem]:
    """Return the triggers and functions that are missing, changed or switched off."""
    found = {(row["table_name"], row["name"]): row for row in await tx.fetch(TRIGGERS, schema)}
    bodies = {row["name"]: (row["body"], row["safe"]) for row in await tx.fetch(FUNCTIONS, schema)}
    wanted = {function.name: (function.body, True) for function in triggers.functions(schema)}
    listed = []
    for trigger in triggers.declared():
        at = found.get((trigger.table, trigger.name))
        if at is None or at["function"] != trigger.function:
            listed.append(TriggerProblem(trigger.table, f"trigger {trigger.name}", "is missing"))
        elif at["enabled"] != "A":
            listed.append(TriggerProblem(trigger.table, f"trigger {trigger.name}", SWITCHED[at["enabled"]]))
        if bodies.get(trigger.function) != wanted[trigger.function]:
            what = "was changed" if trigger.function in bodies else "is missing"
            listed.append(TriggerProblem(trigger.table, f"function {trigger.function}", what))
    for function in triggers.functions(schema):
        # the triggers call it: without it they fail, and with them the writer
        if function.name == WORDS_FUNCTION and bodies.get(function.name) != wanted[function.name]:
            what = "was changed" if function.name in bodies else "is missing"
            listed.append(TriggerProblem("embeddings", f"function {function.name}", what))
    return list(dict.fromkeys(listed))


async def repair(tx: Tx, schema: str, found: Sequence[TriggerProblem]) -> None:
    """Install triggers and functions again, and remember whose rows are to be compared; needs the owner's rights."""
    await tx.execute(f"SET LOCAL lock_timeout = '{REPAIR_LOCK_SECONDS}s'")
    for problem in found:
        await tx.execute(
            "INSERT INTO trigger_repairs (table_name, reason) VALUES ($1, $2) ON CONFLICT (table_name) DO NOTHING",
            problem.table,
            f"{problem.name} {problem.problem}".replace(" is ", " was "),
        )
    for statement in triggers.install(schema):
        await tx.execute(statement)
    # deleted vectors may have left no tombstone: every mirror compares itself instead of following the feed
    if any(problem.table == "embeddings" for problem in found):
        await tx.execute("UPDATE datasets SET feed_from = pg_current_xact_id()")


async def uncompared(tx: ReadTx) -> dict[str, str]:
    """Return the tables whose rows are to be compared with their records since a repair, with the reason."""
    return {row["table_name"]: row["reason"] for row in await tx.fetch(UNCOMPARED)}


def tracked(tables: Collection[str]) -> Iterator[Embeddable]:
    """Return what is embedded of some tables; every kind has records in `embeddings`."""
    for embeddable in EMBEDDABLES:
        if embeddable.table in tables or "embeddings" in tables:
            yield embeddable


async def compared(tx: Tx, tables: Collection[str]) -> None:
    """Remember that the rows of some tables were compared."""
    await tx.execute("DELETE FROM trigger_repairs WHERE table_name = ANY($1)", list(tables))
