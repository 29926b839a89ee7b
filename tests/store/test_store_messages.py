"""Messages: the same one again changes nothing, an edit is a new revision, and each stage is claimed, kept, retried."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from evervec.domain.extraction.knowledge import Score, Signal
from evervec.domain.extraction.message import IncomingMessage
from evervec.store import messages, monitor
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.messages import ClaimedMessage, SavedMessages
from evervec.store.schema.embeddables import MESSAGE
from tests.store.planting import edit

SENT = datetime(2026, 1, 1, tzinfo=UTC)


def incoming(number: int, text: str, *, edited: int | None = None, reply_to: int | None = None) -> IncomingMessage:
    """Make a message of a chat; `edited` hours after it was sent."""
    at = None if edited is None else SENT + timedelta(hours=edited)
    reply = None if reply_to is None else str(reply_to)
    return IncomingMessage("chat", str(number), "dev", SENT, text, edited_at=at, reply_to=reply)


async def save(database: Database, dataset: DatasetRef, *given: IncomingMessage) -> SavedMessages:
    async with database.transaction() as tx:
        return await messages.upsert(tx, dataset.id, given)


async def claim(
    database: Database, stage: str, ids: Sequence[int] | UUID, owner: UUID, *, limit: int = 100, lease: float = 60
) -> list[ClaimedMessage]:
    async with database.transaction() as tx:
        return await messages.claim(tx, stage, ids=ids, limit=limit, owner=owner, lease=lease)


async def score(database: Database, dataset: DatasetRef, signal: Signal = Signal.SIGNAL) -> list[int]:
    """Score what waits and return what is worth extracting."""
    owner = uuid4()
    claimed = await claim(database, "score", dataset.id, owner)
    scores = [Score(c.message.message_id, 0.5, signal, {"length": 0.5}) for c in claimed]
    async with database.transaction() as tx:
        return await messages.mark_scored(tx, owner, claimed, scores)


async def extract(database: Database, dataset: DatasetRef) -> list[int]:
    owner = uuid4()
    claimed = await claim(database, "extract", dataset.id, owner)
    async with database.transaction() as tx:
        return await messages.update_messages(tx, owner, claimed)


async def contents(psql: Any) -> list[tuple[str, int]]:
    return [tuple(row) for row in await psql.fetch("SELECT content, revision FROM messages ORDER BY id")]


async def test_importing_twice_changes_nothing(psql: Any, database: Database, dataset: DatasetRef) -> None:
    given = [incoming(1, "one"), incoming(2, "two", edited=1), incoming(3, "three", reply_to=1)]
    first = await save(database, dataset, *given)
    assert (len(first.created), first.changed, first.unchanged) == (3, [], 0)
    everything = "SELECT *, xmin::text, ctid::text FROM messages ORDER BY id"
    before = await psql.fetch(everything)
    assert await save(database, dataset, *given) == SavedMessages([], [], 3)
    assert await psql.fetch(everything) == before
    assert await save(database, dataset) == SavedMessages([], [], 0)


async def test_an_edited_message_is_a_new_revision(psql: Any, database: Database, dataset: DatasetRef) -> None:
    first = await save(database, dataset, incoming(1, "before"))
    again = await save(database, dataset, incoming(1, "after", edited=1))
    assert (again.created, again.changed, again.unchanged) == ([], first.created, 0)
    assert await contents(psql) == [("after", 2)]


async def test_an_older_export_never_undoes_a_later_edit(psql: Any, database: Database, dataset: DatasetRef) -> None:
    await save(database, dataset, incoming(1, "second edit", edited=2))
    assert await save(database, dataset, incoming(1, "first edit", edited=1)) == SavedMessages([], [], 1)
    assert await save(database, dataset, incoming(1, "as it was sent")) == SavedMessages([], [], 1)
    assert await contents(psql) == [("second edit", 1)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_of_one_message_several_times_in_a_batch_the_latest_edit_counts(
    psql: Any, database: Database, dataset: DatasetRef, order: tuple[int, ...]
) -> None:
    versions = [incoming(1, "sent"), incoming(1, "edited", edited=1), incoming(1, "edited again", edited=2)]
    saved = await save(database, dataset, *(versions[place] for place in order))
    assert (len(saved.created), saved.changed) == (1, [])
    assert await contents(psql) == [("edited again", 1)]


async def test_messages_of_two_chats_or_datasets_are_two_messages(database: Database, dataset: DatasetRef) -> None:
    other = IncomingMessage("another chat", "1", "dev", SENT, "one")
    assert len((await save(database, dataset, incoming(1, "one"), other)).created) == 2


async def test_a_claim_tells_who_answers_whom(database: Database, dataset: DatasetRef) -> None:
    saved = await save(database, dataset, incoming(1, "question"), incoming(2, "answer", reply_to=1))
    lost = await save(database, dataset, incoming(3, "answer to nobody", reply_to=77))
    claimed = await claim(database, "score", dataset.id, uuid4())
    answers = {c.message.message_id: c.message.reply_to for c in claimed}
    assert answers == {saved.created[0]: None, saved.created[1]: saved.created[0], lost.created[0]: None}


async def test_a_message_is_scored_then_extracted_then_done(database: Database, dataset: DatasetRef) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "one"))).created
    assert await claim(database, "extract", dataset.id, uuid4()) == []
    assert await score(database, dataset) == [row_id]
    assert await claim(database, "score", dataset.id, uuid4()) == []
    assert await extract(database, dataset) == [row_id]
    async with database.read() as tx:
        assert await messages.waiting(tx, "score", limit=10) == {}
        assert await messages.waiting(tx, "extract", limit=10) == {}
        assert await messages.progress(tx, [dataset.id]) == {
            "messages": 1, "unscored": 0, "unextracted": 0, "dead": 0,
        }  # fmt: skip


async def test_noise_is_extracted_only_to_take_back_what_it_said_before(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "one"))).created
    assert await score(database, dataset, Signal.NOISE) == []
    await edit(psql, MESSAGE, row_id, "two")
    await score(database, dataset)
    await extract(database, dataset)
    await edit(psql, MESSAGE, row_id, "ok")
    assert await score(database, dataset, Signal.NOISE) == [row_id]


async def test_two_claims_share_no_message(database: Database, dataset: DatasetRef) -> None:
    ids = (await save(database, dataset, *(incoming(number, "text") for number in range(10)))).created
    async with database.transaction() as one, database.transaction() as other:
        first = await messages.claim(one, "score", ids=ids, limit=6, owner=uuid4(), lease=60)
        second = await messages.claim(other, "score", ids=dataset.id, limit=6, owner=uuid4(), lease=60)
    taken = [c.message.message_id for c in (*first, *second)]
    assert (len(first), sorted(taken)) == (6, ids)
    assert await claim(database, "score", dataset.id, uuid4()) == []


async def test_scores_and_extractions_of_an_older_text_count_for_nothing(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "before"))).created
    owner = uuid4()
    claimed = await claim(database, "score", dataset.id, owner)
    await edit(psql, MESSAGE, row_id, "after")
    async with database.transaction() as tx:
        assert await messages.mark_scored(tx, owner, claimed, [Score(row_id, 1, Signal.SIGNAL, {})]) == []
    assert await score(database, dataset) == [row_id]
    claimed = await claim(database, "extract", dataset.id, owner)
    assert claimed[0].message.text == "after"
    await edit(psql, MESSAGE, row_id, "once more")
    async with database.transaction() as tx:
        assert await messages.update_messages(tx, owner, claimed) == []
    assert await psql.fetchval("SELECT extracted_revision FROM messages") is None


async def test_a_score_out_of_bounds_is_clipped_and_its_factors_are_kept(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "one"))).created
    owner = uuid4()
    claimed = await claim(database, "score", dataset.id, owner)
    async with database.transaction() as tx:
        await messages.mark_scored(tx, owner, claimed, [Score(row_id, 1.7, Signal.SIGNAL, {"ideas": 1.7})])
    row = await psql.fetchrow("SELECT score, score_factors->>'ideas' AS ideas FROM messages")
    assert tuple(row) == (1.0, "1.7")


async def test_failures_double_the_wait_and_the_last_one_ends_it(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "one"))).created
    waits = []
    for _ in range(3):
        owner = uuid4()
        assert len(await claim(database, "score", dataset.id, owner)) == 1
        async with database.transaction() as tx:
            await messages.back_off(tx, owner, [row_id], code="bad_response", error="no JSON", most=3)
        waits.append(await psql.fetchval("SELECT extract(epoch FROM not_before - now())::float8 FROM extract_work"))
        assert await claim(database, "score", dataset.id, uuid4()) == []
        await psql.execute("UPDATE extract_work SET not_before = now()")
    assert [round(wait) for wait in waits] == [1, 2, 4]
    assert await claim(database, "score", dataset.id, uuid4()) == []
    async with database.transaction() as tx:
        (failure,) = await monitor.failures(tx, [dataset.id], kind="extraction")
        assert (failure.id, failure.reason) == (row_id, "no JSON")
        assert (await messages.progress(tx, [dataset.id]))["dead"] == 1
        assert await messages.retry(tx, [dataset.id]) == 1
    assert len(await claim(database, "score", dataset.id, uuid4())) == 1


async def test_a_message_given_up_is_opened_again_by_its_edit(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "one"))).created
    owner = uuid4()
    await claim(database, "score", dataset.id, owner)
    async with database.transaction() as tx:
        await messages.back_off(tx, owner, [row_id], code="bad_response", error="no JSON", most=1)
    await edit(psql, MESSAGE, row_id, "two")
    (again,) = await claim(database, "score", dataset.id, owner)
    assert (again.message.text, again.attempts) == ("two", 0)
    # the holder dies: the wait of the old text is not the new one's
    await psql.execute("UPDATE extract_work SET lease_until = now() - interval '1 second'")
    assert len(await claim(database, "score", dataset.id, owner)) == 1


async def test_a_message_handed_back_keeps_its_earlier_failures(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    (row_id,) = (await save(database, dataset, incoming(1, "one"))).created
    owner = uuid4()
    for _ in range(2):
        await claim(database, "score", dataset.id, owner)
        async with database.transaction() as tx:
            await messages.back_off(tx, owner, [row_id], code="bad_response", error="no JSON", most=None)
        await psql.execute("UPDATE extract_work SET not_before = now()")
        await claim(database, "score", dataset.id, owner)
        async with database.transaction() as tx:
            await messages.release(tx, uuid4(), [row_id])
            await messages.release(tx, owner, [row_id])
    (again,) = await claim(database, "score", dataset.id, owner)
    assert again.attempts == 2


async def test_a_lease_that_ran_out_is_taken_over_and_a_renewed_one_is_not(
    database: Database, dataset: DatasetRef
) -> None:
    await save(database, dataset, incoming(1, "one"))
    owner = uuid4()
    await claim(database, "score", dataset.id, uuid4(), lease=0)
    (taken,) = await claim(database, "score", dataset.id, owner, lease=0)
    assert taken.attempts == 1
    async with database.transaction() as tx:
        await messages.renew(tx, owner, lease=60)
    assert await claim(database, "score", dataset.id, uuid4()) == []


@pytest.mark.parametrize("deleted", ["datasets", "projects"])
async def test_messages_of_a_deleted_dataset_wait_for_nobody(
    psql: Any, database: Database, dataset: DatasetRef, deleted: str
) -> None:
    ids = (await save(database, dataset, incoming(1, "one"))).created
    await psql.execute(f"UPDATE {deleted} SET deleted_at = now()")
    assert await claim(database, "score", ids, uuid4()) == []
    async with database.read() as tx:
        assert await messages.waiting(tx, "score", limit=10) == {}


async def test_the_messages_that_wait_are_told_by_dataset_oldest_first(database: Database, dataset: DatasetRef) -> None:
    ids = (await save(database, dataset, *(incoming(number, "text") for number in range(5)))).created
    await claim(database, "score", ids[:1], uuid4())
    async with database.read() as tx:
        assert await messages.waiting(tx, "score", limit=3) == {dataset.id: ids[1:4]}
