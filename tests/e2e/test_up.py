"""One machine, one command: `evervec up`, an import, coverage, a search, and Ctrl-C that leaves nothing behind."""

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from evervec.sources.telegram.demo import DEMO_QUESTIONS, demo_chat_path
from tests.e2e.processes import Product, Worker, environment
from tests.e2e.waiting import eventually
from tests.stack.actors import kill_everything, servers_of

COVERAGE = {"rows", "embedded", "pending", "failed", "empty"}


@pytest.mark.slow
async def test_up_from_nothing_imports_embeds_answers_and_goes_without_a_trace(tmp_path: Path) -> None:
    home = tmp_path / "a new home"
    machine = Product(environment(EVERVEC_HOME=str(home)), tmp_path)
    try:
        async with machine.staying("up", up="Up.") as up:
            imported = await machine.ask("ingest", "telegram", str(demo_chat_path()), "--project", "team")
            assert imported["created"] > 150
            status = await all_embedded(machine)
            assert status["datasets"][0]["kinds"]["message"]["rows"] == imported["created"]
            check_status(status)
            for question in DEMO_QUESTIONS:
                check_search(await machine.ask("search", question.text, "--dataset", "messages"))
            await check_ctrl_c(up, home)
    finally:
        kill_everything(home)


async def all_embedded(machine: Product) -> Any:
    """Return the status once extraction is through and nothing is pending."""
    found: list[Any] = []

    async def done() -> bool:
        found[:] = [await machine.ask("status")]
        knowledge = found[0]["datasets"][0]["knowledge"]
        return not found[0]["pending"] and not knowledge["unscored"] and not knowledge["unextracted"]

    await eventually("nothing pending", done, 120)
    return found[0]


def check_status(status: Any) -> None:
    """Check the shape that scripts rely on, and numbers that add up."""
    assert status.keys() >= COVERAGE
    assert (status["pending"], status["failed"]) == (0, 0)
    assert status["rows"] == status["embedded"] + status["empty"]
    for one in status["datasets"]:
        assert COVERAGE | {"project", "dataset", "kinds"} <= one.keys()
        assert {"message", "atom"} <= one["kinds"].keys()
        assert all(kind.keys() >= COVERAGE for kind in one["kinds"].values())


def check_search(answer: Any) -> None:
    """Check the shape that scripts rely on, best hit first."""
    assert {"engine", "watermark", "pending_in_scope", "milliseconds", "hits"} <= answer.keys()
    assert answer["pending_in_scope"] == 0
    assert answer["hits"]
    assert all({"kind", "id", "dataset", "score", "text"} <= hit.keys() for hit in answer["hits"])
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


async def check_ctrl_c(up: Worker, home: Path) -> None:
    """Check that the command ends well, and neither a server nor a child of it is left."""
    family = [*psutil.Process(up.pid).children(recursive=True), *servers_of(home)]
    assert servers_of(home)
    assert await up.end(signal.SIGINT) == 0, up.said[-2000:]
    assert servers_of(home) == []
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
