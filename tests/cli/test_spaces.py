"""`evervec spaces`: what it prints, what it refuses, and that the library says the same."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from evervec import SemanticCore
from tests.cli.command import Command
from tests.cli.exports import message, write
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread

ROWS = 8


@pytest.fixture
def wide() -> Iterator[FakeProvider]:
    """Serve a model of another width."""
    with FakeProviderThread(dims=48) as fake:
        yield fake


@pytest.fixture
def filled(evervec: Command, wide: FakeProvider, tmp_path: Path) -> Command:
    """Embed a chat by the local model, and add a provider of another one."""
    path = write(tmp_path, [message(number, f"Note {number} of many.") for number in range(1, ROWS + 1)])
    assert evervec("ingest", "telegram", path, "--project", "p", "--dataset", "chat").code == 0
    assert evervec("backfill").code == 0
    added = evervec("providers", "add", "wide", "--base-url", wide.url, "--model", "wider")
    assert added.code == 0
    assert "`evervec providers use wide --reembed`" in added.err
    return evervec


def of(evervec: Command, key: str, *arguments: object) -> list[dict[str, Any]]:
    """Return a list that a command of `evervec spaces` prints."""
    done = evervec("spaces", *arguments, "--json")
    assert done.code == 0, done
    found: list[dict[str, Any]] = done.document()[key]
    return found


def test_a_space_is_planned_built_activated_rolled_back_and_dropped(filled: Command) -> None:
    (plan,) = of(filled, "plans", "plan", "--provider", "wide")
    assert (plan["project"], plan["dataset"], plan["rows"], plan["documents"]) == ("p", "chat", ROWS, 0)
    (built,) = of(filled, "builds", "build", "--provider", "wide")
    assert (built["state"], built["embedded"], built["missing"], built["coverage"]) == ("next", ROWS, 0, 1.0)
    assert of(filled, "builds", "status", "--dataset", "p/chat") == [built]
    status = filled("status")
    assert "p/chat: ollama/wider (48 dimensions) is built beside local/" in status.out, status
    assert "100.0%; searched after `evervec spaces activate`" in status.out, status
    assert filled("status", "--json").document()["builds"] == [built]
    (flipped,) = of(filled, "flipped", "activate")
    assert (flipped["space"], flipped["former"]) == (built["space"], built["searched"])
    hit = filled("search", "Note 7 of many.", "-k", 1, "--json").document()["hits"][0]
    assert hit["text"].endswith("Note 7 of many.")
    (back,) = of(filled, "flipped", "rollback", "--dataset", "chat")
    assert (back["space"], back["former"]) == (flipped["former"], flipped["space"])
    dropped = filled("spaces", "drop", "--json").document()
    assert dropped == {"dropped": 1, "removed": ROWS}
    assert filled("spaces", "status").out.startswith("No other space.")
    searched = {one["model"]: (one["searched"], one["building"], one["kept"]) for one in of(filled, "spaces", "list")}
    assert searched == {"wordllama-l2-supercat-256": (1, 0, 0), "wider": (0, 0, 0)}


def test_a_build_is_left_to_workers_and_then_ended_by_the_command(filled: Command) -> None:
    begun = filled("spaces", "build", "--provider", "wide", "--detach")
    assert (begun.code, "1 dataset written to another space from now on" in begun.err) == (0, True), begun
    filled("spaces", "activate").refused("its next space is not filled yet", code=2)
    done = filled("spaces", "build", "--provider", "wide", "--activate")
    assert done.code == 0, done
    assert "previous" in filled("spaces", "status").out or "Search in it with" in done.err


def test_rows_that_can_not_be_embedded_are_named_and_may_be_left_out(
    filled: Command, wide: FakeProvider, tmp_path: Path
) -> None:
    wide.always(lambda text: text.endswith("Note 3 of many."), Fault.BAD_REQUEST_400)
    built = filled("spaces", "build", "--provider", "wide")
    assert (built.code, "What is missing is waiting or failed" in built.err) == (1, True), built
    filled("spaces", "activate").refused("1 rows have no vector in ollama/wider", "--allow-missing 1", code=2)
    assert filled("spaces", "activate", "--allow-missing", 1).code == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("build --provider nobody", "There is no provider 'nobody'"),
        ("build", "Missing option '--provider'"),
        ("build --provider local --dataset nowhere", "There is no dataset 'nowhere'"),
        ("build --provider local --template nothing", "{text}"),
        ("build --provider local --chunk-tokens 1", "1"),
        ("build --provider local --batch", "has no batch API"),
        ("plan --provider nobody", "There is no provider 'nobody'"),
        ("activate", "No dataset builds another space. Begin with `evervec spaces build --provider NAME`."),
        ("activate --allow-missing -1", "--allow-missing"),
        ("rollback", "No dataset has a space to go back to"),
        ("drop", "There is no space to drop"),
        ("drop --state old", "There is no state 'old'. States: next, previous."),
    ],
)
def test_what_can_not_be_is_told(evervec: Command, line: str, words: str) -> None:
    assert evervec("migrate").code == 0
    evervec("providers", "list")
    evervec("spaces", *line.split()).refused(words)


def test_a_search_over_two_spaces_says_how_it_was_merged_and_what_was_not_searched(
    filled: Command, wide: FakeProvider, tmp_path: Path
) -> None:
    path = write(tmp_path, [message(number, f"Letter {number} of some.") for number in range(1, 4)])
    assert filled("ingest", "telegram", path, "--project", "p", "--dataset", "letters").code == 0
    assert filled("backfill").code == 0
    assert filled("spaces", "build", "--provider", "wide", "--dataset", "letters", "--activate").code == 0
    found = filled("search", "Letter 2 of some.", "-k", 2)
    assert (found.code, "merged by rank" in found.err, "Not searched" in found.err) == (0, True, False), found
    document = filled("search", "Letter 2 of some.", "-k", 2, "--json").document()
    assert (document["merged_by"], {hit["dataset"] for hit in document["hits"]}) == ("rank", {"chat", "letters"})
    wide.always(None, Fault.UNAUTHORIZED_401)
    found = filled("search", "Letter 2 of some.", "-k", 2)
    assert (found.code, "Not searched: p/letters: " in found.err) == (0, True), found
    document = filled("search", "Letter 2 of some.", "-k", 2, "--json").document()
    assert [one.partition(":")[0] for one in document["unanswered"]] == ["p/letters"]


def test_the_library_says_the_same(filled: Command, database_url: str, tmp_path: Path) -> None:
    """Command and library print and return one type, field by field."""

    async def asked() -> dict[str, Any]:
        async with SemanticCore.open(database_url, home=tmp_path / "home") as core:
            return {
                "builds": [asdict(one) for one in await core.spaces.status()],
                "spaces": [asdict(one) for one in await core.spaces.list()],
                "plans": [asdict(one) for one in await core.spaces.plan("local", chunk_tokens=300)],
            }

    assert filled("spaces", "build", "--provider", "wide").code == 0
    said = orjson.loads(orjson.dumps(asyncio.run(asked())))
    assert said == {
        "builds": of(filled, "builds", "status"),
        "spaces": of(filled, "spaces", "list"),
        "plans": of(filled, "plans", "plan", "--provider", "local", "--chunk-tokens", 300),
    }
