"""PgBouncer in transaction mode between Evervec and its server: workers, API and commands share two of its sessions."""

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.conftest import Servers
from tests.database import pooler, rows
from tests.database.pipeline import MakeCommand, answers, fill, ran
from tests.database.places import MESSAGES, STATUS
from tests.database.pooler import NOT_TESTED, Pooler
from tests.database.programs import Psql
from tests.e2e.processes import Product, add_fake, environment
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider

SEARCHES, ROWS = 16, 100
PENDING = f"SELECT count(*) FROM {STATUS} WHERE embedding_status = 'PENDING'"


@pytest.fixture(scope="session")
def bouncer(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """Start PgBouncer for this run."""
    program = pooler.available()
    if program is None:
        pytest.skip(NOT_TESTED)
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


async def test_workers_and_api_and_their_clients_share_two_sessions(
    sql: Psql, bouncer: Pooler, servers: Servers, fake: FakeProvider, tmp_path: Path
) -> None:
    product = Product(
        environment(
            EVERVEC_DATABASE_URL=bouncer.url(sql.url),
            EVERVEC_DATABASE_DIRECT_URL=sql.url,
            EVERVEC_NATS_URL=servers.nats_url,
            EVERVEC_STREAM=f"POOLED_{bouncer.port}",
            EVERVEC_HOME=str(tmp_path / "home"),
        ),
        tmp_path,
    )
    rows.furnish(sql)
    await add_fake(product, fake)
    async with product.worker() as one, product.worker() as two, product.staying("api", up="Serving ") as api:
        address = next(line.split()[1].removesuffix("/docs.") for line in api.said.splitlines() if "Serving " in line)
        sql(
            f"INSERT INTO {MESSAGES} (dataset_id, chat, external_id, author, content, signal, score, score_factors, "
            f"scored_revision) SELECT '{rows.DATASET}', 'chat', n, 'dev', 'row number ' || n, 'noise', 0, '{{}}', 1 "
            f"FROM generate_series(1, {ROWS}) n"
        )

        async def done() -> bool:
            return await asyncio.to_thread(sql.number, PENDING) == 0

        await eventually("nothing pending", done, 60)
        texts = [f"row number {n}" for n in range(1, SEARCHES + 1)]
        found = await asyncio.gather(*(asyncio.to_thread(_first_hit, address, text) for text in texts))
        assert found == texts
        answer = await product.ask("search", "row number 7")
        assert answer["hits"][0]["text"] == "row number 7"
        assert one.lives and two.lives and api.lives
        for said in (one.said, two.said, api.said):
            assert not any(word in said for word in ("ERROR", "[error", "Traceback")), said


def _first_hit(address: str, text: str) -> str:
    query = urllib.parse.quote(text)
    with urllib.request.urlopen(f"{address}/v1/search?q={query}", timeout=60) as response:
        return str(json.load(response)["hits"][0]["text"])
