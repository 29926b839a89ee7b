"""Makes expressions of columns and templates, which PostgreSQL checks, and writes so that they mean the same in any session.

A generated column accepts exactly what the text of a row may be: an immutable expression over the columns of one row.
PostgreSQL keeps on which columns it depends, and prints it with every function and operator in its schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from evervec.domain.attachment import AttachedColumn
from evervec.errors import SourceError
from evervec.store.database.connections import quoted
from evervec.store.database.session import Tx

BYTES = "bytea"
PROBE_PREFIX = "evervec_probe_"

PRINTED = """
SELECT a.attname AS name, pg_get_expr(d.adbin, d.adrelid) AS expression, ARRAY(
    SELECT DISTINCT r.attname::text FROM pg_depend p JOIN pg_attribute r ON r.attrelid = p.refobjid AND r.attnum = p.refobjsubid
    WHERE p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid <> a.attnum
      AND ((p.classid = 'pg_class'::regclass AND p.objid = a.attrelid AND p.objsubid = a.attnum)
           OR (p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid))) AS reads
FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::text::regclass AND a.attgenerated <> ''
"""
WHY_REFUSED = {
    "not immutable": "its value may change without the row (it depends on settings, the time or other tables). Use only "
    "immutable functions: for a date, `to_char` is not one, `extract` is",
    "subquery": "it reads another table; a change there would go unnoticed. Use the columns of one row",
}


TemplateLine = Sequence[tuple[str, str | None]]
"""The parts of a line: the text before a column, and the column's name; None after the last column."""


@dataclass(frozen=True)
class Expressions:
    """The expressions of an attachment, SQL over the columns of its table."""

    text: str
    title: str | None
    where: str | None


async def resolved(
    tx: Tx, where: str, table: str, probe: str, wanted: Expressions, columns: Mapping[str, AttachedColumn]
) -> tuple[Expressions, set[str]]:
    """Return the expressions as PostgreSQL prints them, and the columns that they read; the transaction is to be undone.

    Raises `SourceError` with PostgreSQL's own words for one that it refuses.
    """
    await tx.execute(f"CREATE TABLE {probe} (LIKE {table})")
    for option, type_, expression in (
        ("text", "text", wanted.text),
        ("title", "text", wanted.title),
        ("where", "boolean", wanted.where),
    ):
        if expression is not None:
            await _add(tx, where, probe, option, type_, expression, columns)
    await tx.execute("SELECT set_config('search_path', '', true)")
    printed = {row["name"].removeprefix(PROBE_PREFIX): row for row in await tx.fetch(PRINTED, probe)}
    found = {option: row["expression"] for option, row in printed.items()}
    read = {name for row in printed.values() for name in row["reads"]}
    if "text" in found and not printed["text"]["reads"]:
        raise SourceError(
            where=where, reason=f"--text {wanted.text!r} reads no column: every row would have the same text."
        )
    return Expressions(found["text"], found.get("title"), found.get("where")), read


async def _add(
    tx: Tx, where: str, probe: str, option: str, type_: str, expression: str, columns: Mapping[str, AttachedColumn]
) -> None:
    """Add a generated column; by the extended protocol, which takes one statement and no more."""
    made = f"({expression}\n)::text" if type_ == "text" else f"({expression}\n)"
    try:
        if option == "text":
            await _require_no_bytes(tx, where, probe, expression)
        await tx.fetch(
            f"ALTER TABLE {probe} ADD COLUMN {PROBE_PREFIX}{option} {type_} GENERATED ALWAYS AS ({made}) STORED"
        )
    except asyncpg.PostgresError as error:
        said = str(error).partition("\n")[0]
        reason = next((advice for mark, advice in WHY_REFUSED.items() if mark in said), said)
        if isinstance(error, asyncpg.DatatypeMismatchError):
            reason = "it has to be a condition, true or false"
        if isinstance(error, asyncpg.UndefinedColumnError):
            reason = f"{said}; its columns are {', '.join(columns)}"
        raise SourceError(where=where, reason=f"--{option} {expression[:200]!r}: {reason}.") from error


async def _require_no_bytes(tx: Tx, where: str, probe: str, expression: str) -> None:
    await tx.fetch(f'CREATE VIEW {probe[:-1]}_type" AS SELECT ({expression}\n) AS value FROM {probe}')
    type_ = await tx.fetchval(
        "SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'value'",
        f'{probe[:-1]}_type"',
    )
    await tx.fetch(f'DROP VIEW {probe[:-1]}_type"')
    if type_ == BYTES:
        raise SourceError(where=where, reason=f"--text {expression[:200]!r} is of type {type_}, which is no text.")


def joined(columns: Sequence[str]) -> str:
    """Return the expression of the columns' values with blank lines between them; what is NULL is left out."""
    parts = " || ".join(f"coalesce(E'\\n\\n' || {quoted(name)}::text, '')" for name in columns)
    return f"substr({parts}, 3)"


def filled_in(lines: Sequence[TemplateLine]) -> str:
    """Return the expression of a template: a line whose columns are all empty is left out, and so is a text without values."""
    names = [name for line in lines for _, name in line if name is not None]
    text = " || ".join(f"coalesce(E'\\n' || {_line(line)}, '')" for line in lines)
    return f"CASE WHEN {_any_value(names)} THEN substr({text}, 2) END"


def _line(line: TemplateLine) -> str:
    names = [name for _, name in line if name is not None]
    parts = [part for text, name in line for part in (_literal(text), *([_value(name)] if name is not None else []))]
    said = " || ".join(parts or ["''"])
    return f"CASE WHEN {_any_value(names)} THEN {said} END" if names else said


def _any_value(names: Sequence[str]) -> str:
    """Return the condition that one of some columns has more than blanks."""
    return " OR ".join(f"{_value(name)} ~ '\\S'" for name in dict.fromkeys(names))


def _value(name: str) -> str:
    return f"coalesce({quoted(name)}::text, '')"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
