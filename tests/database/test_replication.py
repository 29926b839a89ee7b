"""A real publication and a real subscription: rows that arrive as a replica's are tracked like those of any writer."""

from collections.abc import Callable, Iterator

import pytest

from evervec.stack.postgres import cluster
from evervec.store.schema.embeddables import CHUNK, EMBEDDABLES, MESSAGE
from tests.database import rows
from tests.database.clusters import configured, eventually, migrated, started
from tests.database.contents import contents
from tests.database.places import EMBEDDINGS, MESSAGES, SCHEMA, TABLES, place
from tests.database.programs import Psql
from tests.database.rows import digests, recorded

MANY = 500


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psql]:
    """Start a server of its own, migrated, with every table of rows published."""
    home = tmp_path_factory.mktemp("publisher")
    address = configured(home)
    with started(home) as psql:
        migrated(psql)
        psql = Psql(f"{address}/{cluster.DATABASE}")
        rows.furnish(psql)
        psql(f"CREATE PUBLICATION ours FOR TABLE {', '.join(TABLES)}")
        yield psql


@pytest.fixture
def subscriber(publisher: Psql, made_databases: Callable[..., Psql], template: str) -> Iterator[Psql]:
    """Subscribe a migrated database of another server; its datasets are there, its rows come from the publisher."""
    publisher(f"TRUNCATE {', '.join(TABLES)} CASCADE", f"TRUNCATE {SCHEMA}.vector_tombstones")
    for embeddable in EMBEDDABLES:
        publisher(rows.insert(embeddable, {key: f"{embeddable.name} {key}" for key in range(1, 6)}))
    psql = made_databases(template)
    rows.furnish(psql)
    name = psql.value("SELECT current_database()")
    psql(f"CREATE SUBSCRIPTION {name} CONNECTION '{publisher.url}' PUBLICATION ours")
    try:
        yield psql
    finally:
        psql(f"ALTER SUBSCRIPTION {name} DISABLE", f"DROP SUBSCRIPTION {name}")


def caught_up(publisher: Psql, subscriber: Psql) -> None:
    """Wait until all that was written at the publisher has been applied."""
    name = subscriber.value("SELECT current_database()")
    eventually(
        "the first copy of every table",
        lambda: subscriber.number("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") == 0,
    )
    position = publisher.value("SELECT pg_current_wal_lsn()")
    applied = (
        f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND replay_lsn >= '{position}'"
    )
    eventually(f"{position} applied", lambda: publisher.number(applied) == 1)


def test_rows_of_a_publication_are_tracked_from_the_first_copy_on(publisher: Psql, subscriber: Psql) -> None:
    caught_up(publisher, subscriber)
    for embeddable in EMBEDDABLES:
        assert recorded(subscriber, embeddable) == digests({key: f"{embeddable.name} {key}" for key in range(1, 6)})
    rows.embed_all(subscriber)
    for embeddable in EMBEDDABLES:
        publisher(
            rows.insert(embeddable, {6: "inserted"}),
            rows.edit(embeddable, 1, "edited"),
            f"DELETE FROM {SCHEMA}.{embeddable.table} WHERE id = 2",
        )
    publisher(f"INSERT INTO {MESSAGES} (id, dataset_id, chat, external_id, author, content) "
              f"SELECT 1000 + n, '{rows.DATASET}', 'many', n, 'dev', 'many ' || n FROM generate_series(1, {MANY}) n")  # fmt: skip
    caught_up(publisher, subscriber)
    for embeddable in EMBEDDABLES:
        held = {1: "edited", **{key: f"{embeddable.name} {key}" for key in (3, 4, 5)}, 6: "inserted"}
        if embeddable is MESSAGE:
            held |= {1000 + n: f"many {n}" for n in range(1, MANY + 1)}
        assert recorded(subscriber, embeddable) == digests(held)
    assert len(rows.tombstones(subscriber)) == len(EMBEDDABLES)
    assert subscriber.number(f"SELECT count(*) FROM {EMBEDDINGS} WHERE embedding IS NOT NULL") == 4 * len(EMBEDDABLES)
    assert rows.untracked(subscriber) == 0


def test_a_truncate_that_is_replicated_leaves_tombstones(publisher: Psql, subscriber: Psql) -> None:
    """Nothing refers to chunks: where something does, PostgreSQL itself wants those tables published too."""
    caught_up(publisher, subscriber)
    rows.embed_all(subscriber)
    assert len(recorded(subscriber, CHUNK)) == 5
    publisher(f"TRUNCATE {place(CHUNK)}")
    caught_up(publisher, subscriber)
    assert recorded(subscriber, CHUNK) == {}
    assert len(rows.tombstones(subscriber)) == 5
    assert contents(subscriber)["topics"] == contents(publisher)["topics"]
