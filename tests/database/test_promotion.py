"""The primary is lost with transactions that its standby never got: mirrors are carried over, not rebuilt, and right."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from evervec.errors import EvervecError
from evervec.pipeline.mirrors import mirror as mirror_module
from evervec.pipeline.mirrors.mirror import Mirror
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.pipeline.upkeep.mirror_check import check_index_sync
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.stack.postgres import cluster
from evervec.store import datasets
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from tests.database.clusters import configured, crash, eventually, standby, started
from tests.database.programs import Psql
from tests.pipeline.mirrors.mirroring import embedded, process, until_true, worker

TEXTS = [
    f"a {colour} {thing}"
    for colour in ("red", "blue", "green", "golden", "wooden", "frozen", "electric", "ancient", "tiny", "broken")
    for thing in (
        "river",
        "engine",
        "violin",
        "castle",
        "parrot",
        "carpet",
        "invoice",
        "volcano",
        "lantern",
        "sandwich",
    )
]
LOST = ["a lost letter", "a lost umbrella", "a lost battle"]
COLLIDING = 4
"""Rows that are written in either history by a transaction of the same id."""
APART = 60
"""Transaction ids between them, and what a process may take of them meanwhile."""


@dataclass(frozen=True)
class Pair:
    """A primary and its standby."""

    home: Path
    primary: Psql
    standby: Psql

    @property
    def url(self) -> str:
        """Return the address of whichever can be written."""
        hosts = ",".join(one.url.rpartition("@")[2].partition("/")[0] for one in (self.primary, self.standby))
        return f"postgresql://{cluster.USER}@{hosts}/{cluster.DATABASE}?target_session_attrs=read-write"

    def cut(self) -> None:
        """Let the standby replay what there is, and nothing of what is written from now on."""
        written = self.primary.value("SELECT pg_current_wal_lsn()")
        caught_up = f"SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= '{written}'"
        eventually(f"{written} replayed", lambda: self.primary.number(caught_up) == 1)
        self.standby("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
        eventually("nothing is received", lambda: self.standby.number(receivers) == 0)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Start a primary, and its standby."""
    home = tmp_path / "primary"
    home.mkdir()
    address = configured(home)
    # it would take transaction ids
    with started(home) as local, standby(home, address, tmp_path / "standby") as other:
        for psql in (local, Psql(f"{other}/{cluster.DATABASE}")):
            psql("ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
        yield Pair(home, *(Psql(f"{server}/{cluster.DATABASE}") for server in (address, other)))


@asynccontextmanager
async def connected(psql: Psql) -> AsyncIterator[Any]:
    """Connect to one server, as another program's client."""
    connection = await asyncpg.connect(psql.url)
    try:
        yield connection
    finally:
        connection.terminate()  # its server may be gone


async def spend(connection: Any, until: int) -> None:
    """Use transaction ids up, so that the next one is `until`."""
    following = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    while await connection.fetchval(following) < until:
        await connection.execute("SELECT pg_current_xact_id()")


async def become(connection: Any, row_id: int, like: int) -> int:
    """Give a row the text and the vector of another one, in one transaction; return its id."""
    async with connection.transaction():
        await connection.execute(
            "UPDATE messages SET content = (SELECT content FROM messages WHERE id = $2) WHERE id = $1", row_id, like
        )
        xid: int = await connection.fetchval(
            "UPDATE embeddings e SET embedding = o.embedding, embedded_hash = e.content_hash, embedded_at = now() "
            "FROM embeddings o WHERE (e.kind, o.kind) = (1, 1) AND (e.row_id, o.row_id) = ($1, $2) "
            "RETURNING e.changed_xid::text::bigint",
            row_id,
            like,
        )
    return xid


async def exact(resources: Resources, dataset: DatasetRef, mirror: Mirror) -> None:
    """Assert that a mirror is the database's: every vector, version and kind, compared without the product's check."""
    await mirror.catch_up()
    assert mirror.index is not None
    snapshot = mirror.index.snapshot
    async with resources.database.read() as tx:
        wanted = await changes.all_vectors(tx, dataset.id, dataset.space_id, snapshot.dimensions)
    ids, versions = snapshot.versions()
    assert dict(zip(ids.tolist(), versions.tolist(), strict=True)) == dict(
        zip(wanted.ids.tolist(), wanted.versions.tolist(), strict=True)
    )
    assert (snapshot.kinds_of(wanted.ids) == wanted.kinds).all()
    np.testing.assert_allclose(snapshot.vectors(wanted.ids), wanted.rows, atol=2e-3)


async def found(resources: Resources, text: str) -> tuple[str, list[str]]:
    """Return the engine that answers, and the hits that are this very text."""
    answer = await search(resources, text, k=20, dataset="log")
    return answer.engine, [hit.text for hit in answer.hits if hit.text == text]


class Comparisons:
    """Lets comparisons with another history begin, and go on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._begun, self._go_on = asyncio.Event(), asyncio.Event()
        self._carry_over = mirror_module.carry_over
        monkeypatch.setattr(mirror_module, "carry_over", self._held)

    async def __aenter__(self) -> None:
        await asyncio.wait_for(self._begun.wait(), 60)

    async def __aexit__(self, *_: object) -> None:
        self._go_on.set()

    def proceed(self) -> None:
        """Let them go on, these and all that follow."""
        self._go_on.set()

    async def _held(self, *arguments: Any) -> Any:
        self.count += 1
        self._begun.set()
        await self._go_on.wait()
        return await self._carry_over(*arguments)


async def test_a_promoted_standby_costs_a_comparison_and_no_rebuild(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons = Comparisons(monkeypatch)
    settings = Settings(home=tmp_path, database_url=pair.url, stop_seconds=5, connect_seconds=10)
    running, stopped = tmp_path / "running", tmp_path / "stopped"
    async with open_runtime(settings, migrate=True) as runtime:
        resources = runtime.resources
        async with resources.database.transaction() as tx:
            dataset, other = [await datasets.ensure(tx, "river", name) for name in ("log", "other")]
        async with connected(pair.primary) as old:
            rows = await embedded(resources, old, dataset, *TEXTS)
            await embedded(resources, old, other, "a dataset in which nothing happens")
            async with worker(resources, faiss_dir=running) as one:
                mirror, beside = await until_true(one, dataset), await until_true(one, other)
                assert mirror.index is not None and beside.index is not None
                built = mirror.index.snapshot.main.index
                await asyncio.to_thread(pair.cut)
                lost = await write_what_is_lost(resources, old, dataset, rows)
                await until_true(one, dataset)
                async with worker(resources, faiss_dir=stopped) as two:
                    await until_true(two, dataset)
                crash(pair.home)
                with pytest.raises(EvervecError):  # there is nobody to write to, and nothing ends for it
                    while await search(one, TEXTS[3], k=1):
                        await asyncio.sleep(0)
                await asyncio.to_thread(pair.standby, "SELECT pg_promote()")
                async with connected(pair.standby) as new, comparisons:
                    await write_instead(resources, new, dataset, rows, lost)
                    engine, texts = await found(one, TEXTS[31])
                    assert engine == "exact", "a mirror that is being compared is not searched"
                    assert len(texts) == 1 + COLLIDING
                    comparisons.proceed()
                    await until_true(one, dataset)
                    await until_true(one, other)
                    await what_a_process_does_that_was_never_stopped(one, dataset, mirror, built)
                    await exact(one, other, beside)
                    compared = comparisons.count
                    async with process(resources, faiss_dir=running) as next_start:
                        await opened_without_a_comparison(next_start, dataset)
                    assert comparisons.count == compared
                    await what_a_process_does_that_starts_afterwards(resources, stopped, dataset, new, rows)


async def write_what_is_lost(resources: Resources, old: Any, dataset: DatasetRef, rows: list[int]) -> dict[int, int]:
    """Insert, edit and delete; return the transactions of the rows that are written again, by row."""
    await embedded(resources, old, dataset, *LOST)
    await old.execute("DELETE FROM messages WHERE id = ANY($1)", rows[10:12])
    lost = {}
    for row_id in rows[:COLLIDING]:
        following = await old.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        await spend(old, following + APART)
        lost[row_id] = await become(old, row_id, rows[30])
    await spend(old, max(lost.values()) + 10 * APART)  # what a mirror has seen is far ahead of what the standby has
    return lost


async def write_instead(
    resources: Resources, new: Any, dataset: DatasetRef, rows: list[int], lost: dict[int, int]
) -> None:
    """Write the same rows otherwise, in transactions of the ids of those that were lost, and some more."""
    same = 0
    for row_id, xid in lost.items():
        await spend(new, xid)
        same += await become(new, row_id, rows[31]) == xid
    assert same, "another process took every one of the ids"
    await new.execute("DELETE FROM messages WHERE id = $1", rows[12])
    await embedded(resources, new, dataset, "a new beginning")


async def what_a_process_does_that_was_never_stopped(
    one: Resources, dataset: DatasetRef, mirror: Mirror, built: Any
) -> None:
    """Assert that it has carried its mirror over in memory."""
    assert one.mirrors.mirror(dataset) is mirror
    assert mirror.index is not None
    assert mirror.index.snapshot.main.index is built, "it was not built again"
    assert mirror.index.snapshot.identity.timeline == 2
    await exact(one, dataset, mirror)
    assert await found(one, TEXTS[31]) == ("mirror", [TEXTS[31]] * (1 + COLLIDING))
    assert await found(one, TEXTS[30]) == ("mirror", [TEXTS[30]])
    assert await found(one, LOST[1]) == ("mirror", [])
    assert await found(one, TEXTS[10]) == ("mirror", [TEXTS[10]]), "its deletion was lost"
    assert await found(one, TEXTS[12]) == ("mirror", [])


async def opened_without_a_comparison(resources: Resources, dataset: DatasetRef) -> None:
    """Open what is on disk, and assert that it is right."""
    mirror = resources.mirrors.mirror(dataset)
    await mirror.open()
    assert (mirror.state, mirror.reason, mirror.file.state) == ("ready", "", "ready")
    await exact(resources, dataset, mirror)


async def what_a_process_does_that_starts_afterwards(
    resources: Resources, folder: Path, dataset: DatasetRef, new: Any, rows: list[int]
) -> None:
    """Assert how a file is used that holds what was lost: by one question, by a look at it, by a check, by the next start."""
    async with process(resources, faiss_dir=folder) as once:
        assert await found(once, TEXTS[31]) == ("exact", [TEXTS[31]] * (1 + COLLIDING))
        assert (await search(once, TEXTS[31], engine="mirror", dataset="log")).engine == "exact"
        before = once.mirrors.folder.describe(dataset.project_id, dataset.id)
    async with process(resources, faiss_dir=folder) as looking:
        [seen] = await check_index_sync(looking, dataset="log", repair=False)
        assert (seen.in_sync, seen.repaired, seen.state) == (False, "", "at rest")
        assert "timeline 1, not 2" in seen.reason
        assert before == looking.mirrors.folder.describe(dataset.project_id, dataset.id)
    async with process(resources, faiss_dir=folder) as checking:
        [repaired] = await check_index_sync(checking, dataset="log")
        assert (repaired.missing, repaired.extra, repaired.stale) == (seen.missing, seen.extra, seen.stale)
        assert (repaired.missing, repaired.extra, repaired.repaired) == (3, 4, "repair")
        assert repaired.stale >= COLLIDING
        assert before is not None
        after = checking.mirrors.folder.describe(dataset.project_id, dataset.id)
        assert after is not None
        assert (after["generation"], after["n"]) == (before["generation"] + 1, before["n"]), "the file is the same"
    await new.execute("DELETE FROM messages WHERE id = $1", rows[13])
    await become(new, rows[14], rows[31])
    async with process(resources, faiss_dir=folder) as next_start:
        await opened_without_a_comparison(next_start, dataset)
        [again] = await check_index_sync(next_start, dataset="log", deep=True, repair=False)
        assert (again.in_sync, again.reason) == (True, "")
