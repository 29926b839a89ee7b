"""A template is filled in by PostgreSQL as an SQL source's is by Python."""

from typing import Any

import pytest

from evervec.errors import SourceError
from evervec.sources.sql import template as templates
from evervec.store.database.session import Database
from tests.store.attaching import attach

TABLE = """
CREATE TABLE public."Ord""ers" (
    id int PRIMARY KEY, "The status" text, body text, paid bool, price numeric, data jsonb, photo bytea, at timestamptz
);
INSERT INTO public."Ord""ers" VALUES
    (1, 'late', E'Where\\nis it?', true, 1.50, '{"a": 1}'), (2, NULL, '', false, 0, NULL), (3, '  ', NULL, NULL, NULL, NULL),
    (4, '100% {sure}', E'a\\\\b ''q''', NULL, 12345678901234567890, '[]')
"""
TEMPLATES = [
    "{body}",
    "Status: {The status}\n\n{body}",
    "{The status} {body}\n{price} EUR, paid: {paid}",
    "Always here, {{in braces}} it's a \\n of 100%\n{The status}\n{body}\nthe end",
    "\n{price}{price}\n",
]


@pytest.mark.parametrize("said", TEMPLATES)
async def test_a_template_says_the_same_here_and_there(database: Database, psql: Any, said: str) -> None:
    await psql.execute(TABLE)
    attached = await attach(database, '"Ord""ers"', None, template=said)
    assert {column.name for column in attached.table.reads} == set(templates.fields(said))
    rows = {(row["id"],): dict(row) for row in await psql.fetch('SELECT * FROM public."Ord""ers"')}
    found = {key: row.text or "" for key, row in (await attached.read(*rows)).items()}
    assert found == {key: templates.render(said, row) for key, row in rows.items()}


REFUSED = {
    "{titel}": "--template names 'titel'; its columns are id, The status",
    "{photo}": "--template names 'photo', which holds bytes",
    "{at}": "its value may change without the row",
    "no column": "names no column",
    "{body": "expected '}' before end of string",
    "{body!r}": "a template only fills in",
    "{0}": "needs a column's name",
}


@pytest.mark.parametrize(("said", "reason"), REFUSED.items())
async def test_a_template_that_can_not_be_filled_in_says_why(
    database: Database, psql: Any, said: str, reason: str
) -> None:
    await psql.execute(TABLE)
    with pytest.raises(SourceError) as refusal:
        await attach(database, '"Ord""ers"', None, template=said)
    assert reason in str(refusal.value)
