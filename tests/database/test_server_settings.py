"""Settings that a DBA gives a role or a database: the whole way of a row works under each, or its refusal has a name."""

from pathlib import Path

import pytest

from tests.cli.exports import message, write
from tests.database.conftest import MakeRole
from tests.database.pipeline import MakeCommand, answers, fill, ran, works
from tests.database.programs import Psql

TIMEOUTS = {
    "statement_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "1s",
    "lock_timeout": "1s",
    "transaction_timeout": "5s",
    "default_transaction_isolation": "serializable",
}
LOOKS = {
    "row_security": "off",
    '"DateStyle"': "'SQL, DMY'",
    '"IntervalStyle"': "'sql_standard'",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    '"TimeZone"': "'Pacific/Apia'",
    "client_encoding": "LATIN1",
    "lc_messages": "'C'",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "default_toast_compression": "pglz",
    "synchronous_commit": "off",
    "enable_seqscan": "off",
    "default_transaction_deferrable": "on",
    "check_function_bodies": "off",
    "search_path": "pg_catalog",
}


def set_for(sql: Psql, of: str, settings: dict[str, str]) -> None:
    """Set settings for whoever connects from now on."""
    sql(*(f"ALTER {of} SET {name} = {value!r}" if "'" not in value else f"ALTER {of} SET {name} = {value}"
          for name, value in settings.items()))  # fmt: skip


@pytest.mark.parametrize("settings", [TIMEOUTS, LOOKS], ids=["timeouts", "looks"])
def test_the_whole_way_of_a_row_under_settings_of_the_database(
    vacant: Psql, evervec: MakeCommand, tmp_path: Path, settings: dict[str, str]
) -> None:
    set_for(vacant, f"DATABASE {vacant.value('SELECT current_database()')}", settings)
    works(evervec(vacant.url), tmp_path)


def test_a_database_that_is_read_only_is_refused_by_name(sql: Psql, evervec: MakeCommand, tmp_path: Path) -> None:
    command = evervec(sql.url)
    ran(command("status"))
    set_for(sql, f"DATABASE {sql.value('SELECT current_database()')}", {"default_transaction_read_only": "on"})
    path = write(tmp_path, [message(1)])
    command("ingest", "telegram", path, "--project", "river", "--dataset", "log").refused(
        "read-only", "EVERVEC_DATABASE_URL", code=1
    )
    ran(command("status"))


def test_without_any_path_no_statement_finds_less(vacant: Psql, evervec: MakeCommand, tmp_path: Path) -> None:
    command = evervec(vacant.url)
    assert vacant.value("SHOW search_path") == '""'
    works(command, tmp_path)
    for arguments in (
        ("similar", "message", "1", "--json"),
        ("duplicates", "--json"),
        ("failed", "list"),
        ("runs",),
        ("batch", "list", "--json"),
        ("providers", "list", "--json"),
        ("mirror", "status", "--json"),
        ("mirror", "rebuild", "--json"),
        ("queue", "dead", "list"),
    ):
        done = command(*arguments)
        done.tidy()
        assert done.code in (0, 1), (arguments, done)
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "a.md").write_text("# Pumps\n\nThe pump stops when the filter is full.\n")
    ran(command("ingest", "files", documents, "--project", "river", "--dataset", "files"))
    ran(command("backfill", "--json"))
    found = ran(command("search", "why does the pump stop", "--dataset", "files", "--json")).document()
    assert "filter is full" in found["hits"][0]["text"]


def test_a_role_with_settings_of_its_own(vacant: Psql, evervec: MakeCommand, tmp_path: Path, role: MakeRole) -> None:
    name = role("LOGIN")
    vacant(
        "CREATE EXTENSION vector SCHEMA public",
        f"GRANT CREATE ON DATABASE {vacant.value('SELECT current_database()')} TO {name}",
    )
    set_for(vacant, f"ROLE {name}", {"search_path": "nowhere", "statement_timeout": "1s", "client_encoding": "LATIN1"})
    command = evervec(vacant.logged_in_as(name).url)
    ran(command("migrate"))
    fill(command, tmp_path)
    answers(command)
