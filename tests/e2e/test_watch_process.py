"""`evervec watch` beside a worker: what is saved is found soon, for no more texts than were touched, and nothing is lost."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from evervec.pipeline.embedding.health import KNOWN_TEXT
from tests.e2e.homes import connected
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import PENDING, count, wait_until_nothing_is_pending
from tests.e2e.test_postgres_restarted import restarted
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider
from tests.stack.actors import pids

LEASE_SECONDS = 60
"""Each text is counted: on a busy machine a shorter lease may expire."""
VECTOR = """
SELECT count(*) FROM chunks c JOIN embeddings e ON e.kind = 4 AND e.row_id = c.id
WHERE c.content LIKE '%' || $1 || '%' AND e.embedded_hash = c.content_hash
"""
DOCUMENTS = "SELECT count(*) FROM documents"


def section(number: int, text: str = "as it was written") -> str:
    return f"## Section {number}\n\nThis is paragraph {number}, {text}.\n\n"


def save(path: Path, text: str) -> None:
    """Save a file as editors do: whoever looks in the middle sees the old text, and never an empty one."""
    made = path.with_name(f".{path.name}.new")
    made.write_text(text)
    made.replace(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    place.mkdir()
    (place / "guide.md").write_text("# Guide\n\n" + "".join(map(section, range(80))))
    return place


async def found_soon(psql: Any, words: str) -> float:
    """Wait until a chunk with these words has its vector; the seconds."""

    async def embedded() -> bool:
        return await psql.fetchval(VECTOR, words) == 1

    return await eventually(f"{words!r} can be found", embedded)


async def test_an_edited_paragraph_is_found_soon_and_nothing_else_is_sent(
    product: Product, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    await add_fake(product, fake)
    async with product.worker(), product.staying("watch", str(folder), up="Watching.") as watch:
        await wait_until_nothing_is_pending(psql)
        sent = fake.texts_sent()
        paragraphs = [section(number) for number in range(80)]
        for edit in range(5):
            paragraphs[40 + edit] = section(40 + edit, f"but edit {edit} changed it")
            save(folder / "guide.md", "# Guide\n\n" + "".join(paragraphs))
            await found_soon(psql, f"but edit {edit} changed it")
        texts = fake.texts_sent() - sent
        texts.pop(KNOWN_TEXT, None)
        assert sorted(texts.values()) == [1] * 5
        assert all("changed it" in text for text in texts)
        hits = (await product.ask("search", next(iter(texts)), "--dataset", "documents"))["hits"]
        assert "but edit 0 changed it" in hits[0]["text"]

        (folder / "guide.md").unlink()

        async def gone() -> bool:
            return await count(psql, DOCUMENTS) == 0

        await eventually("the document is gone", gone)
        assert (await product.ask("search", next(iter(texts)), "--dataset", "documents"))["hits"] == []
        assert await watch.end(signal.SIGINT) == 0
        assert watch.said.count("1 changed: 1 chunk updated, 79 the same") == 5
        assert "1 gone: 80 chunks gone" in watch.said


async def test_without_a_worker_it_says_so_and_a_worker_that_comes_embeds_what_waits(
    product: Product, fake: FakeProvider, psql: Any, folder: Path
) -> None:
    await add_fake(product, fake)
    async with product.staying("watch", str(folder), "--json", up="Watching.") as watch:
        assert "no worker is running" in watch.said
        (folder / "new.md").write_text("A page of its own.")

        async def told() -> list[Any]:
            return [json.loads(line) for line in watch.said.splitlines() if line.startswith("{")]

        async def twice() -> bool:
            return len(await told()) == 2

        await eventually("a line for each run", twice)
        first, second = await told()
        assert (first["mode"], first["documents"]["new"]) == ("full", 1)
        assert (second["mode"], second["changed"], second["documents"]["new"]) == ("delta", {"files": 1}, 1)
        assert await count(psql, PENDING) > 80
        async with product.worker():
            await wait_until_nothing_is_pending(psql)
        assert await watch.end(signal.SIGTERM) == 0


@pytest.mark.slow
async def test_what_changes_while_postgresql_is_killed_and_restarted_is_caught_up_with(
    machine: Product, home: Path, folder: Path
) -> None:
    async with (
        machine.staying("up", up="Up.") as up,
        machine.staying("watch", str(folder), up="Watching.") as watch,
    ):
        former = pids(home)["postgres"]
        psutil.Process(former).send_signal(signal.SIGKILL)
        for number in range(50):
            (folder / f"page{number}.md").write_text(f"Page number {number}.")
        (folder / "guide.md").unlink()
        await restarted(home, former)
        (folder / "last.md").write_text("The last page.")
        async with connected(home) as psql:

            async def all_there() -> bool:
                return await count(psql, DOCUMENTS) == 51

            await eventually("all changes are in the database", all_there)
            await wait_until_nothing_is_pending(psql)
        assert await watch.end(signal.SIGTERM) == 0
        assert await up.end(signal.SIGTERM) == 0
