"""The twin without an event loop: complete, and at home in a script, in a thread and in a notebook."""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlmodel import Session

from evervec import Document, SemanticCore, SyncSemanticCore
from evervec.errors import Refused, UnknownBatchJobError
from evervec.library.blocking_batches import SyncBatchManager
from evervec.library.blocking_spaces import SyncSpaces
from evervec.library.spaces import Spaces
from evervec.pipeline.batch.manager import BatchManager
from tests.library.articles import TABLE, TEXT, Article, settled

TWINS = [(SemanticCore, SyncSemanticCore), (BatchManager, SyncBatchManager), (Spaces, SyncSpaces)]


@pytest.mark.parametrize(("asynchronous", "blocking"), TWINS)
def test_the_twin_has_every_public_coroutine(asynchronous: type, blocking: type) -> None:
    coroutines = dict(inspect.getmembers(asynchronous, lambda one: inspect.iscoroutinefunction(inspect.unwrap(one))))
    public = [name for name in coroutines if not name.startswith("_")]
    assert len(public) >= 5
    for name in public:
        twin = inspect.getattr_static(blocking, name, None)
        assert twin is not None, f"{blocking.__name__} has no {name}"
        assert not inspect.iscoroutinefunction(twin)
        assert inspect.signature(twin) == inspect.signature(coroutines[name])
        assert twin.__doc__ == coroutines[name].__doc__


def used(url: str, how: dict[str, Any]) -> str:
    """Use it as a script does; return the text that is found."""
    with SyncSemanticCore.open(url, **how) as core:
        done = core.ingest([Document.from_text("a", "birds sing in the morning"), Document.from_text("b", "cold soup")])
        assert (done.documents, done.pending) == (2, 0)
        assert core.status().datasets
        assert core.batch_manager.list() == []
        with pytest.raises(UnknownBatchJobError):
            core.batch_manager.get("none")
        return core.search("a bird's song", k=1).hits[0].text


def test_in_a_script(database_url: str, how: dict[str, Any]) -> None:
    before = threading.enumerate()
    assert used(database_url, how).endswith("birds sing in the morning")
    assert [one for one in threading.enumerate() if one not in before and not one.daemon] == []


def test_in_a_thread(database_url: str, how: dict[str, Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(used, database_url, how).result().endswith("birds sing in the morning")


async def test_in_a_notebook_whose_loop_runs(database_url: str, how: dict[str, Any]) -> None:
    assert used(database_url, how).endswith("birds sing in the morning")


def test_from_several_threads_at_once(database_url: str, how: dict[str, Any]) -> None:
    with SyncSemanticCore.open(database_url, **how) as core, ThreadPoolExecutor(4) as pool:
        documents = [Document.from_text(f"n:{n}", f"text number {n}") for n in range(12)]
        assert sum(done.embedded for done in pool.map(core.ingest, documents)) == 12


def test_an_error_in_the_block_is_the_callers_and_closes(database_url: str, how: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError), SyncSemanticCore.open(database_url, **how) as core:
        raise ZeroDivisionError
    with pytest.raises(Refused, match="This core is closed"):
        core.status()


def test_errors_are_those_of_the_engine(database_url: str, how: dict[str, Any]) -> None:
    with SyncSemanticCore.open(database_url, **how) as core:
        with pytest.raises(Refused, match="There is no mode"):
            core.ingest(Document.from_text("a", "text"), mode="later")
        with pytest.raises(Refused, match="evervec providers add"):
            core.batch_manager.flush_queue()


def test_a_synchronous_session_gets_its_objects_and_a_transaction_is_one(
    database_url: str, how: dict[str, Any]
) -> None:
    app = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with SyncSemanticCore.open(database_url, **how) as core:
        with core.transaction() as tx:
            for statement in TABLE.split(";"):
                tx.execute(statement)
            tx.ingest(Document.from_text("a", "birds sing in the morning"))
            assert [row[0] for row in tx.fetch("SELECT count(*) FROM articles")] == [3]
        done = core.attach(Article, text=TEXT, dataset="app/articles")
        core._carry_out(partial(settled, core._core, done))
        with Session(app) as session:
            answer = core.search("birds", of=Article, session=session)
            assert next(hit.row.id for hit in answer) == 1
        with pytest.raises(ZeroDivisionError), core.transaction() as tx:
            assert tx.delete("a") == 1
            raise ZeroDivisionError
        assert core.status().rows == 4
        assert core.detach(Article).documents == 3
    app.dispose()
