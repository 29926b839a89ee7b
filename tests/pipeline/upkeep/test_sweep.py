"""The sweep: what no task finished is found, in every project, smallest first."""

from datetime import UTC, datetime
from typing import Any

from evervec.domain.extraction.message import IncomingMessage
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.sweep import get_projects_with_vectorization_count, sweep
from evervec.store import datasets, messages

AT = datetime(2026, 1, 1, tzinfo=UTC)


async def fill(resources: Resources, project: str, count: int) -> None:
    text = "We have a bug: the worker hangs for ever after a restart of NATS."
    async with resources.database.transaction() as tx:
        made = await datasets.ensure(tx, project, "log", root_path=f"/srv/{project}")
        incoming = [IncomingMessage("telegram:1", str(i), "dev", AT, f"{project} {i}: {text}") for i in range(count)]
        await messages.upsert(tx, made.id, incoming)


async def test_projects_come_with_their_pending_count_smallest_first(local: Resources, psql: Any) -> None:
    await fill(local, "large", 30)
    await fill(local, "small", 3)
    await fill(local, "deleted", 5)
    await psql.execute("UPDATE projects SET deleted_at = now() WHERE slug = 'deleted'")
    found = await get_projects_with_vectorization_count(local)
    assert [(path, pending) for _, path, pending in found] == [("/srv/small", 3), ("/srv/large", 30)]


async def test_a_sweep_scores_extracts_and_embeds_what_nobody_rang_for(local: Resources, psql: Any) -> None:
    await fill(local, "alone", 20)
    await sweep(local)
    await sweep(local)  # atoms and topics of the first one
    assert await psql.fetchval("SELECT count(*) FROM messages WHERE extracted_revision IS NULL") == 0
    assert await psql.fetchval("SELECT count(*) FROM atoms") > 0
    states = await psql.fetch("SELECT DISTINCT embedding_status FROM embedding_status")
    assert [row[0] for row in states] == ["READY"]


async def test_a_sweep_with_nothing_to_do_writes_nothing(local: Resources, psql: Any) -> None:
    await fill(local, "quiet", 5)
    await sweep(local)
    await sweep(local)
    before = await psql.fetchval("SELECT pg_current_xact_id()")
    await sweep(local)
    # our own look-up is the only transaction that got an id since
    assert int(await psql.fetchval("SELECT pg_current_xact_id()")) == int(before) + 1
