"""PgBouncer in transaction mode between Evervec and its server: workers, API and commands share two of its sessions."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.conftest import Servers
from tests.database import pooler
from tests.database.pipeline import MakeCommand, answers, fill, ran
from tests.database.pooler import Pooler
from tests.database.programs import Psql

SKIPPED = "PgBouncer is not installed and could not be: poolers in transaction mode were NOT tested"


@pytest.fixture(scope="session")
def bouncer(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """Start PgBouncer for this run."""
    program = pooler.available()
    if program is None:
        warnings.warn(pytest.PytestWarning(SKIPPED), stacklevel=1)
        pytest.skip(SKIPPED)
    with pooler.started(program, servers.database_url, tmp_path_factory.mktemp("pgbouncer")) as running:
        yield running


@pytest.fixture
def through(bouncer: Pooler, evervec: MakeCommand) -> Callable[[Psql], Command]:
    """Return what makes an `evervec` that reaches a database through the pooler, and directly where it must."""

    def make(psql: Psql, **more: str) -> Command:
        return evervec(bouncer.url(psql.url), EVERVEC_DATABASE_DIRECT_URL=psql.url, **more)

    return make


def test_the_whole_way_of_a_row(vacant: Psql, through: Callable[[Psql], Command], tmp_path: Path) -> None:
    command = through(vacant)
    ran(command("migrate"))
    fill(command, tmp_path)
    answers(command)


def test_without_a_direct_address_only_what_needs_a_session_is_refused(
    sql: Psql, bouncer: Pooler, through: Callable[[Psql], Command], evervec: MakeCommand, tmp_path: Path
) -> None:
    ran(through(sql)("migrate"))
    command = evervec(bouncer.url(sql.url))
    fill(command, tmp_path)
    answers(command)
    command("migrate").refused("EVERVEC_DATABASE_DIRECT_URL")


def test_a_session_that_others_have_used_is_as_good_as_a_new_one(
    sql: Psql, bouncer: Pooler, through: Callable[[Psql], Command], tmp_path: Path
) -> None:
    """What another client of the pooler leaves behind in a session does not reach our statements."""
    command = through(sql)
    ran(command("migrate"))
    other = Psql(bouncer.url(sql.url))
    for leftover in ("SET search_path = nowhere", "SET bytea_output = escape", "SET default_transaction_isolation = serializable",
                     "SET statement_timeout = '150ms'", "PREPARE __asyncpg_stmt_1__ AS SELECT 1"):  # fmt: skip
        other(leftover)
        other(f"BEGIN; {leftover if leftover.startswith('SET') else 'SELECT 1'}; SELECT pg_sleep(0.01); COMMIT")
    fill(command, tmp_path)
    answers(command)
