"""Indexing with real processes: projects made while workers run, small before large, deleted in the middle, killed in the middle."""

import asyncio
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests import forking
from tests.e2e.killing import hold_back
from tests.e2e.processes import Product, add_fake
from tests.e2e.rows import count, make_dataset
from tests.e2e.waiting import eventually
from tests.fakes.server import FakeProvider

LEASE_SECONDS = 60
"""On a busy machine a shorter one may expire; those of a process that was killed are ended."""
ENDED = "UPDATE leases SET lease_until = now(); UPDATE embed_work SET lease_until = now()"

LEFT = """
SELECT (SELECT count(*) FROM documents WHERE dataset_id = $1 AND content IS NOT NULL)
     + (SELECT count(*) FROM embeddings WHERE dataset_id = $1 AND pending_id IS NOT NULL)
     + (SELECT count(*) FROM documents WHERE dataset_id = $1 AND NOT EXISTS (SELECT FROM chunks WHERE document_id = documents.id))
"""


async def put_documents(psql: Any, dataset_id: UUID, number: int, word: str) -> None:
    """Put documents in as any program may: with a text that waits to be chunked."""
    await psql.execute(
        "INSERT INTO documents (dataset_id, uri, content) SELECT $1, 'note/' || n, $3 || ' note number ' || n "
        "FROM generate_series(1, $2::int) n",
        dataset_id,
        number,
        word,
    )


async def left(psql: Any, dataset_id: UUID) -> int:
    """Count documents to chunk and chunks to embed."""
    return int(await psql.fetchval(LEFT, dataset_id))


def pages(folder: Path, number: int) -> Path:
    """Return small pages, each of one chunk."""
    folder.mkdir()
    for page in range(number):
        (folder / f"page{page:05}.md").write_text(f"# Page {page}\n\nWhat page {page} says about queues.\n")
    return folder


async def test_a_project_made_while_a_worker_runs_is_chunked_and_embedded_without_a_restart(
    product: Product, fake: FakeProvider, psql: Any
) -> None:
    await add_fake(product, fake)
    async with product.worker():
        new = await make_dataset(psql, "new", "notes")
        await put_documents(psql, new, 20, "new")

        async def done() -> bool:
            return await left(psql, new) == 0

        await eventually("the new project is embedded", done)
    assert await count(psql, "SELECT count(*) FROM chunks") == 20
    assert await count(psql, "SELECT count(*) FROM embeddings WHERE embedding IS NOT NULL") == 20


@pytest.mark.slow
async def test_of_two_projects_the_small_one_finishes_first(product: Product, fake: FakeProvider, psql: Any) -> None:
    await add_fake(product, fake)
    large, small = await make_dataset(psql, "large", "notes"), await make_dataset(psql, "small", "notes")
    hold_back(fake, after=4_000, word="large note")
    await put_documents(psql, large, 10_000, "large")
    await put_documents(psql, small, 10, "small")
    async with product.worker():

        async def small_done() -> bool:
            return await left(psql, small) == 0

        await eventually("the small project is embedded", small_done)
        assert await left(psql, large) > 5_000


@pytest.mark.slow
async def test_a_dataset_deleted_in_the_middle_of_its_run_leaves_nothing_and_no_error(
    product: Product, fake: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    await add_fake(product, fake)
    folder = pages(tmp_path / "pages", 3_000)
    async with product.worker() as worker:
        run = asyncio.create_task(
            product.run("ingest", "files", str(folder), "--project", "p", "--dataset", "gone", "--json")
        )

        async def begun() -> bool:
            return await count(psql, "SELECT count(*) FROM chunks") > 200

        await eventually("the run is well under way", begun)
        await psql.execute("UPDATE datasets SET deleted_at = now() WHERE slug = 'gone'")
        outcome = await run
        assert outcome.code == 0, outcome.stderr
        assert outcome.document["state"] == "cancelled"

        async def purged() -> bool:
            return not [
                table
                for table in ("documents", "chunks", "embeddings", "embed_work")
                if await count(psql, f"SELECT count(*) FROM {table}")
            ]

        await eventually("no row and no vector is left", purged)
        assert "[error" not in worker.said, worker.said[-2000:]
        assert "[warning" not in worker.said, worker.said[-2000:]


@pytest.mark.slow
async def test_an_index_run_that_is_killed_is_finished_by_a_worker_from_where_it_was(
    product: Product, fake: FakeProvider, psql: Any, tmp_path: Path
) -> None:
    await add_fake(product, fake)
    folder = pages(tmp_path / "pages", 2_000)
    log = tmp_path / "killed.log"
    killed = await forking.start_command(
        ("ingest", "files", str(folder), "--project", "p", "--dataset", "docs"), product.environment, log, log
    )

    async def begun() -> bool:
        return await count(psql, "SELECT count(*) FROM chunks") > 200

    await eventually("the run is well under way", begun)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    await psql.execute(ENDED)
    cursor, chunked = (
        await psql.fetchval("SELECT cursor FROM index_runs"),
        await count(psql, "SELECT count(*) FROM chunks"),
    )
    assert chunked < 2_000
    assert cursor is not None
    async with product.worker():

        async def finished() -> bool:
            return await psql.fetchval("SELECT state FROM index_runs") == "done"

        await eventually("the run is finished", finished, 120)
    assert await count(psql, "SELECT count(*) FROM documents") == 2_000
    assert await count(psql, "SELECT count(*) FROM embeddings WHERE embedding IS NULL") == 0
    run = await psql.fetchrow("SELECT attempts, documents_new, documents_unchanged FROM index_runs")
    assert (run["attempts"], run["documents_new"]) == (2, 2_000)
    assert run["documents_unchanged"] <= 64, "it began anew"
    twice = [text for text, times in fake.texts_embedded().items() if times > 1 and "page" in text]
    assert len(twice) <= 512, "what was answered before the kill and not written is sent once more, not all of it"
