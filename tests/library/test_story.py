"""The calls that people know from the library that this one replaces, as they wrote them: no `with`, no loop, no arguments."""

import asyncio
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evervec import Document, GeminiBatchClient, SemanticCore
from evervec.errors import Refused, UnreadablePathError
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread
from tests.fakes.vectors import expected_vectors

BACKEND = Path(__file__).parents[2] / "backend"
PROGRAM = """
import sys
from evervec import Document, SemanticCore

url, home, key, fake, path = sys.argv[1:]
core = SemanticCore(url, home=home, secret_key=key, batch_grace_seconds=0)
core.add_provider("gemini", "gemini", model="embedder", api_key="k", base_url=fake, price=0.15, use=True)
assert core.search("anything").hits == []
assert core.search("anything", dataset="documents").hits == []
with open(path) as file:
    doc = Document(file)
print(core.ingest(doc, mode="ASYNC").pending)
print(core.batch_manager.flush_queue().rows)
while core.batch_manager.check_and_sync().running:
    pass
print(core.search("birds").hits[0].text)
"""
"""It ends without closing anything, as scripts do."""


def test_the_story_runs_as_it_is_told(database_url: str, how: dict[str, Any], tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Birds\n\nThey sing in the morning.\n")
    start = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"import sys; sys.path.insert(0, {str(BACKEND)!r})\n{PROGRAM}",
    ]
    with FakeProviderThread() as fake:
        given = [database_url, str(tmp_path), how["secret_key"], fake.url, str(notes)]
        done = subprocess.run([*start, *given], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    pending, rows, *text = done.stdout.splitlines()
    assert (pending, rows) == ("1", "1")
    assert text[-1] == "They sing in the morning."


async def test_a_core_opens_at_its_first_use_and_is_closed_and_started_as_often_as_one_likes(
    database_url: str, how: dict[str, Any]
) -> None:
    core = SemanticCore(database_url, **how)
    await core.close()
    await core.start()
    await core.start()
    assert (await core.ingest(Document.from_text("a", "birds sing"))).embedded == 1
    # a thread without an event loop of its own is served by the one in which the core is open
    assert [hit.text for hit in await asyncio.to_thread(core.search, "birds", 1)] == ["birds sing"]
    await core.close()
    await core.close()
    with pytest.raises(Refused, match="This core is closed"):
        await core.search("birds")
    async with core:
        assert (await core.batch_manager.list(), len(await core.search("birds"))) == ([], 1)


def test_a_core_serves_one_event_loop_after_another_if_it_is_closed_between(
    database_url: str, how: dict[str, Any]
) -> None:
    core = SemanticCore(database_url, **how)

    async def used() -> None:
        assert (await core.search("birds")).hits == []
        await core.close()

    asyncio.run(used())
    core.start()  # in a thread
    assert core.list() == []
    core.close()


def test_a_file_is_a_document_by_its_path_and_open(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_bytes("# Birds\r\n\r\nThey sing – in the morning.\n".encode())
    named = Document.from_path(path)
    with path.open() as text, path.open("rb") as data:
        assert [Document(str(path)), Document(path), Document(text), Document(data)] == [named] * 4
    assert Document(path, metadata={"lang": "en"}).metadata == {"lang": "en"}
    with pytest.raises(UnreadablePathError):
        Document(tmp_path / "none.md")
    with pytest.raises(Refused, match="has no name to be known by"):
        Document(StringIO("text"))


async def test_gemini_alone_embeds_chunks_by_their_ids(fake: FakeProvider) -> None:
    async with GeminiBatchClient("k", model="embedder", base_url=fake.url, dimensions=fake.dims) as client:
        chunks: dict[str | int, str] = {7: "birds sing", "7": "cold soup", "a/b": "warm bread"}
        job_id = await client.create_embedding_job(chunks)
        with pytest.raises(Refused, match=f"Job {job_id} is"):
            await client.download_results(job_id)
        while not (await client.get_job_status(job_id)).over:
            assert len(fake.requests) < 50
        found = await client.download_results(job_id)
        assert (found.keys(), found.errors) == (chunks.keys(), {})
        expected = expected_vectors("embedder", list(chunks.values()), fake.dims)
        assert np.allclose([found[chunk_id] for chunk_id in chunks], expected, atol=1e-3)
        for wrong in ({}, [(7, "a"), (7, "b")], [(None, "a")]):
            with pytest.raises(Refused):
                await client.create_embedding_job(wrong)  # type: ignore[arg-type]  # the mistake
