"""Triggers that are missing, changed or switched off are named, installed again, and what they missed is taken in."""

from typing import Any

import pytest

from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.triggers import repair_triggers, trigger_problems
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.schema import integrity
from evervec.store.schema.embeddables import MESSAGE
from tests.store.planting import embed_all, plant, record

BROKEN = {
    "ALTER TABLE messages DISABLE TRIGGER USER": "messages: trigger evervec_track_messages is switched off",
    "ALTER TABLE messages DISABLE TRIGGER USER; ALTER TABLE messages ENABLE TRIGGER USER": "is off for replicas",
    "DROP TRIGGER evervec_track_messages ON messages": "messages: trigger evervec_track_messages is missing",
    "DROP FUNCTION evervec.evervec_track_messages CASCADE": "messages: function evervec_track_messages is missing",
    "ALTER FUNCTION evervec.evervec_track_messages SECURITY INVOKER": "function evervec_track_messages was changed",
    "ALTER FUNCTION evervec.evervec_track_messages RESET ALL": "function evervec_track_messages was changed",
    "CREATE OR REPLACE FUNCTION evervec.evervec_track_messages() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NULL; END'": "function evervec_track_messages was changed",
}


async def test_nothing_is_wrong_with_a_new_database(database: Database) -> None:
    async with database.read() as tx:
        assert await integrity.problems(tx, database.schema) == []


@pytest.mark.parametrize(("statement", "problem"), BROKEN.items())
async def test_what_is_broken_is_named_mended_and_what_was_missed_is_taken_in(
    bare: Resources, psql: Any, dataset: DatasetRef, statement: str, problem: str
) -> None:
    before = await plant(psql, MESSAGE, dataset.id, "known")
    await psql.execute(statement)
    # a bulk load as a replica, or with the triggers as they are now
    await psql.execute("SET session_replication_role = replica")
    missed = await plant(psql, MESSAGE, dataset.id, "missed")
    await psql.execute("RESET session_replication_role")
    found = await trigger_problems(bare)
    assert any(problem in str(one) for one in found), found
    assert all("evervec migrate" in str(one) for one in found)

    await repair_triggers(bare)

    assert await trigger_problems(bare) == []
    assert await record(psql, MESSAGE, missed) is not None
    assert await record(psql, MESSAGE, before) is not None
    after = await plant(psql, MESSAGE, dataset.id, "after")
    assert await record(psql, MESSAGE, after) is not None


async def test_rows_stay_due_until_they_were_compared(bare: Resources, psql: Any, dataset: DatasetRef) -> None:
    await psql.execute("DROP TRIGGER evervec_track_messages ON messages")
    missed = await plant(psql, MESSAGE, dataset.id, "missed")
    async with bare.database.transaction() as tx:
        await integrity.repair(tx, "evervec", await integrity.defects(tx, "evervec"))
    # the process that repaired ended here
    (problem,) = await trigger_problems(bare)
    assert "messages: some rows may be unknown, because trigger evervec_track_messages was missing" in str(problem)
    await repair_triggers(bare)
    assert await trigger_problems(bare) == []
    assert await record(psql, MESSAGE, missed) is not None


async def test_a_mirror_compares_itself_after_deletions_that_left_no_tombstone(
    bare: Resources, psql: Any, dataset: DatasetRef
) -> None:
    row_id = await plant(psql, MESSAGE, dataset.id, "gone")
    await embed_all(psql)
    await psql.execute("DROP TRIGGER evervec_vector_deleted ON embeddings")
    await psql.execute("DELETE FROM messages WHERE id = $1", row_id)
    assert await psql.fetchval("SELECT feed_from FROM datasets") is None
    await repair_triggers(bare)
    assert await psql.fetchval("SELECT feed_from FROM datasets") is not None
