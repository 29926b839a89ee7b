"""Triggers that somebody took away or turned off: it is said where people look, and a worker or `migrate` repairs it."""

from pathlib import Path

import pytest

from evervec.store.schema.embeddables import EMBEDDABLES, MESSAGE
from tests.conftest import Servers
from tests.database import rows
from tests.database.contents import noticed, objects
from tests.database.pipeline import MakeCommand, ran
from tests.database.places import EMBEDDINGS, MESSAGES
from tests.database.programs import Psql
from tests.e2e.processes import Product, environment
from tests.e2e.waiting import eventually

TRACK = "evervec_track_messages"
LOAD = rows.insert(MESSAGE, {key: f"loaded {key}" for key in range(10, 37)})
UNSEEN = f"UPDATE {MESSAGES} SET content = content || ' changed' WHERE id <= 2; DELETE FROM {MESSAGES} WHERE id = 3"
BULK_LOAD = (
    f"ALTER TABLE {MESSAGES} DISABLE TRIGGER USER",
    LOAD,
    UNSEEN,
    f"ALTER TABLE {MESSAGES} ENABLE TRIGGER USER",
    "SET session_replication_role = replica",
    rows.insert(MESSAGE, {50: "written by replication"}),
)


@pytest.fixture
def app(furnished: Psql) -> Psql:
    """Return psql on a database with rows and vectors of every kind."""
    for embeddable in EMBEDDABLES:
        furnished(rows.insert(embeddable, {key: f"{embeddable.name} {key}" for key in (1, 2, 3, 6)}))
    return furnished


async def test_status_says_that_a_bulk_load_was_not_seen_and_a_worker_takes_it_in(
    app: Psql, servers: Servers, tmp_path: Path
) -> None:
    product = Product(
        environment(
            EVERVEC_DATABASE_URL=app.url,
            EVERVEC_NATS_URL=servers.nats_url,
            EVERVEC_STREAM=app.value("SELECT upper('LOST_' || current_database())"),
            EVERVEC_HOME=str(tmp_path / "home"),
        ),
        tmp_path,
    )
    assert not (await product.ask("status"))["problems"]
    made = objects(app)
    app(*BULK_LOAD)
    assert rows.untracked(app) == 31
    told = await product.run("status")
    assert f"trigger {TRACK}_update is off for replicas and restores" in " ".join(told.stdout.split()), told
    assert "evervec migrate" in told.stdout

    async def in_order() -> bool:
        status = await product.ask("status")
        return not status["problems"] and status["pending"] == 0

    async with product.worker() as worker:
        await eventually("repaired, compared and embedded", in_order, 120)
        assert "trigger repaired" in worker.said
        assert TRACK in worker.said
    assert rows.untracked(app) == 0
    assert objects(app) == made


@pytest.mark.parametrize(
    "statements",
    [BULK_LOAD, (f"DROP FUNCTION evervec.{TRACK}() CASCADE", LOAD, UNSEEN), ("SET session_replication_role = replica", LOAD, UNSEEN)],
    ids=["switched off for a while", "dropped", "never off"],
)  # fmt: skip
def test_migrate_repairs_it_too(app: Psql, evervec: MakeCommand, statements: tuple[str, ...]) -> None:
    made = objects(app)
    rows.embed_all(app)
    app(*statements)
    ran(evervec(app.url)("migrate"))
    assert (rows.untracked(app), objects(app)) == (0, made)
    noticed(app)


def test_a_trigger_of_the_users_own_is_no_problem(app: Psql, evervec: MakeCommand) -> None:
    app(
        "CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER theirs AFTER INSERT ON {MESSAGES} FOR EACH ROW EXECUTE FUNCTION public.theirs()",
        f"ALTER TABLE {MESSAGES} DISABLE TRIGGER theirs",
    )
    command = evervec(app.url)
    assert not ran(command("status", "--json")).document()["problems"]
    ran(command("migrate"))
    assert app.value("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'theirs'") == "D"


def test_mirror_check_says_that_deletions_may_be_unseen(app: Psql, evervec: MakeCommand) -> None:
    app(f"DROP TRIGGER evervec_vector_deleted ON {EMBEDDINGS}")
    done = evervec(app.url)("mirror", "check")
    assert "evervec_vector_deleted" in done.out + done.err, done
