"""A process that freezes while it extracts a dataset: another one goes on after the lease, and nothing is written twice."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from evervec.pipeline.extraction.extract import extract_knowledge
from evervec.pipeline.extraction.score import score_messages
from evervec.pipeline.resources import Resources
from evervec.store.datasets import DatasetRef
from tests.e2e.processes import environment
from tests.e2e.waiting import eventually
from tests.pipeline.extraction import frozen
from tests.pipeline.extraction.test_extract import DECISION, PROBLEM, save

KNOWN = "SELECT a.id, a.title, a.content, (SELECT count(*) FROM atom_versions v WHERE v.atom_id = a.id) FROM atoms a ORDER BY 1"


@pytest.mark.parametrize("point", frozen.POINTS)
async def test_a_frozen_extraction_is_taken_over_and_writes_nothing_when_it_wakes(
    local: Resources, dataset: DatasetRef, psql: Any, database_url: str, point: str
) -> None:
    ids = await save(local, dataset, {"1": PROBLEM, "2": DECISION})
    await score_messages(local, ids)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", frozen.__name__, str(dataset.id), point),
        cwd=Path(__file__).parents[3],
        env=environment(EVERVEC_DATABASE_URL=database_url, EVERVEC_LEASE_SECONDS="2"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:

        async def is_frozen() -> bool:
            return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED

        await eventually("it stands still", is_frozen)

        async def extracted() -> bool:
            return (await extract_knowledge(local, ids))["messages"] == 2

        await eventually("another process extracts", extracted)
        found = await psql.fetch(KNOWN)
        process.send_signal(signal.SIGCONT)
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    counts = json.loads(said)
    assert (process.returncode, counts["messages"], counts["atoms"]) == (0, 0, 0)
    assert counts["asked"] == (0 if point == "before it asks" else 1)
    assert await psql.fetch(KNOWN) == found and found
    assert (
        await psql.fetchval("SELECT count(*) FROM leases")
        == await psql.fetchval("SELECT count(*) FROM extract_work")
        == 0
    )
