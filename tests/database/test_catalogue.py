"""What PostgreSQL's catalogue says of our functions and triggers: each has its own search_path and is found by its full name."""

import re

from tests.database.places import SCHEMA
from tests.database.programs import Psql

FUNCTIONS = rf"""
SELECT p.proname, coalesce(array_to_string(p.proconfig, ';'), ''), p.prosecdef, p.prorettype = 'trigger'::regtype,
       pg_get_userbyid(p.proowner) = pg_get_userbyid(n.nspowner), translate(p.prosrc, E'\n', ' ')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = '{SCHEMA}' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""
TRIGGERS = """
SELECT c.relnamespace::regnamespace, c.relname, t.tgname, pn.nspname, p.proname, t.tgenabled::text
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_namespace pn ON pn.oid = p.pronamespace
WHERE NOT t.tgisinternal ORDER BY 1, 2, 3
"""
# an operator of an extension in a WHEN clause can not be named in full, and pg_dump prints it under an empty search_path
FOREIGN_OPERATORS = """
SELECT t.tgname FROM pg_trigger t JOIN pg_depend d ON d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
"""


def test_every_function_has_a_search_path_of_its_own_that_no_other_role_can_write_to(sql: Psql) -> None:
    functions = sql(FUNCTIONS)
    assert len(functions) >= 7
    for name, config, definer, is_trigger, owned, source in functions:
        path = dict(setting.split("=", 1) for setting in config.split(";")).get("search_path") if config else None
        assert path is not None, f"{name} has no search_path: {config!r}"
        assert "public" not in path, f"{name}: {path}"
        # where it is not named it is searched first
        assert path.strip('"') == "" or path.rstrip().endswith("pg_temp"), f"{name}: pg_temp is not last in {config}"
        assert owned == "t", f"{name} belongs to another role than its schema"
        if is_trigger == "t" and re.search(r"\b(INSERT INTO|DELETE FROM|UPDATE \w)", source):
            assert definer == "t", f"{name} writes with the rights of whoever fires it"


def test_every_trigger_is_ours_and_always_fires(sql: Psql) -> None:
    found = sql(TRIGGERS)
    assert len(found) >= 15
    for schema, table, trigger, function_schema, function, enabled in found:
        assert (schema, function_schema) == (SCHEMA, SCHEMA), (
            f"{trigger} of {schema}.{table} runs {function_schema}.{function}"
        )
        assert enabled == "A", f"{trigger} of {table} is {enabled}"


def test_no_trigger_depends_on_an_operator_of_an_extension(sql: Psql) -> None:
    assert sql(FOREIGN_OPERATORS) == []


def test_everything_that_migrate_makes_is_in_one_schema(sql: Psql, vacant: Psql) -> None:
    outside = (
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        f"WHERE n.nspname NOT IN ('{SCHEMA}', 'pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1, 2"
    )
    assert sql(outside) == vacant(outside) == []
