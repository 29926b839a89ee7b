"""Leases: who may embed a row, for how long, and what becomes of it when something goes wrong."""

import asyncio
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest

from evervec.store import datasets, monitor
from evervec.store.database.session import Database, Tx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import rows
from evervec.store.embeddings.rows import ClaimedRow, FailedRow
from evervec.store.schema.embeddables import ATOM, EMBEDDABLES, MESSAGE
from tests.store.planting import edit, embed_all, plant


async def claim(tx: Tx, dataset: DatasetRef, owner: UUID, *, limit: int = 100, lease: float = 60) -> list[ClaimedRow]:
    return await rows.claim_dataset(tx, dataset.id, space_id=dataset.space_id, limit=limit, owner=owner, lease=lease)


async def claimed_by(database: Database, dataset: DatasetRef, owner: UUID, **options: Any) -> list[ClaimedRow]:
    async with database.transaction() as tx:
        return await claim(tx, dataset, owner, **options)


async def work(psql: Any) -> Any:
    """Return the only record of `embed_work`, or None."""
    (*found,) = await psql.fetch("SELECT * FROM embed_work")
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture
async def message(psql: Any, dataset: DatasetRef) -> int:
    """Insert a pending message."""
    return await plant(psql, MESSAGE, dataset.id, "hello")


async def test_a_claim_brings_the_text_that_its_digest_says(psql: Any, database: Database, dataset: DatasetRef) -> None:
    for embeddable in EMBEDDABLES:
        await plant(psql, embeddable, dataset.id, f"text of a {embeddable.name}")
    claimed = await claimed_by(database, dataset, uuid4())
    assert {row.text for row in claimed} == {f"text of a {embeddable.name}" for embeddable in EMBEDDABLES}
    assert all(sha256(row.text.encode()).digest() == row.content_hash for row in claimed)


async def test_a_claim_of_one_kind_leaves_the_others(psql: Any, database: Database, dataset: DatasetRef) -> None:
    for embeddable in EMBEDDABLES:
        await plant(psql, embeddable, dataset.id, "hello")
    async with database.transaction() as tx:
        claimed = await rows.claim_dataset(
            tx, dataset.id, space_id=dataset.space_id, kind=ATOM.kind, limit=10, owner=uuid4(), lease=60
        )
    assert [row.kind for row in claimed] == [ATOM.kind]


async def test_a_claim_waits_for_the_open_one_and_shares_no_row_with_it(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    for number in range(10):
        await plant(psql, MESSAGE, dataset.id, f"text {number}")

    async def later() -> list[rows.ClaimedRow]:
        async with database.transaction() as tx:
            return await claim(tx, dataset, uuid4(), limit=6)

    async with database.transaction() as one:
        first = await claim(one, dataset, uuid4(), limit=6)
        waiting = asyncio.create_task(later())
        async with asyncio.timeout(60):
            while not await psql.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                await asyncio.sleep(0)
        assert not waiting.done()
    assert [row.text for row in first] == [f"text {number}" for number in range(6)]
    assert [row.text for row in await waiting] == [f"text {number}" for number in range(6, 10)]


async def test_a_text_that_somebody_embeds_is_claimed_by_nobody_else(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    for _ in range(2):
        await plant(psql, MESSAGE, dataset.id, "the same text")
    async with database.transaction() as tx:
        owner = uuid4()
        (held,) = await claim(tx, dataset, owner, limit=1)
    async with database.transaction() as tx:
        assert await claim(tx, dataset, uuid4(), limit=5) == []
        await rows.release(tx, owner, [held.vector_id])
        assert len(await claim(tx, dataset, uuid4(), limit=5)) == 2


async def test_many_claims_at_once_take_every_row_exactly_once(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    ids = [await plant(psql, MESSAGE, dataset.id, f"text {number}") for number in range(120)]
    barrier = asyncio.Barrier(6)

    async def worker(backwards: bool) -> list[int]:
        owner, taken = uuid4(), []
        await barrier.wait()
        for start in range(0, len(ids), 10):
            async with database.transaction() as tx:
                if backwards:
                    part = ids[len(ids) - start - 10 : len(ids) - start]
                    claimed = await rows.claim_ids(
                        tx, dataset.id, MESSAGE, part, space_id=dataset.space_id, limit=10, owner=owner, lease=60
                    )
                else:
                    claimed = await claim(tx, dataset, owner, limit=10)
            taken += [row.row_id for row in claimed]
        return taken

    taken = await asyncio.gather(*(worker(number % 2 == 1) for number in range(6)))
    assert sorted(row_id for part in taken for row_id in part) == ids


async def test_the_oldest_row_comes_first_whatever_its_kind(psql: Any, database: Database, dataset: DatasetRef) -> None:
    texts = []
    for number, embeddable in enumerate([*EMBEDDABLES, *reversed(EMBEDDABLES)]):
        texts.append(f"text {number}")
        await plant(psql, embeddable, dataset.id, texts[-1])
    taken = [(await claimed_by(database, dataset, uuid4(), limit=1))[0].text for _ in texts]
    assert taken == texts


async def test_a_claim_by_ids_takes_only_pending_rows_of_its_kind(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    done, blank = await plant(psql, MESSAGE, dataset.id, "done"), await plant(psql, MESSAGE, dataset.id, "  ")
    await embed_all(psql)
    new = await plant(psql, MESSAGE, dataset.id, "new")
    async with database.transaction() as tx:
        none = await rows.claim_ids(
            tx,
            dataset.id,
            ATOM,
            [done, blank, new, 10**9],
            space_id=dataset.space_id,
            limit=10,
            owner=uuid4(),
            lease=60,
        )
        found = await rows.claim_ids(
            tx,
            dataset.id,
            MESSAGE,
            [done, blank, new, 10**9],
            space_id=dataset.space_id,
            limit=10,
            owner=uuid4(),
            lease=60,
        )
    assert (none, [row.row_id for row in found]) == ([], [new])


async def test_a_lease_keeps_others_away_until_its_time_is_up(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    await claimed_by(database, dataset, uuid4())
    assert await claimed_by(database, dataset, uuid4()) == []
    await psql.execute("UPDATE embed_work SET lease_until = now() - interval '1 millisecond'")
    (taken,) = await claimed_by(database, dataset, uuid4())
    # the first holder died with it: that is held against the text
    assert (taken.row_id, taken.attempts) == (message, 1)


async def test_a_renewed_lease_lasts_longer_and_only_the_owner_renews_it(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    owner = uuid4()
    await claimed_by(database, dataset, owner, lease=0)
    async with database.transaction() as tx:
        assert await rows.renew(tx, uuid4(), lease=60) == 0
        assert await rows.renew(tx, owner, lease=60) == 1
    assert await claimed_by(database, dataset, uuid4()) == []


async def test_a_row_edited_under_a_lease_is_free_for_its_new_text(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    await claimed_by(database, dataset, uuid4())
    await edit(psql, MESSAGE, message, "edited")
    (taken,) = await claimed_by(database, dataset, uuid4())
    assert (taken.text, taken.attempts) == ("edited", 0)


async def test_what_was_held_against_the_old_text_is_not_held_against_the_new_one(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    owner = uuid4()
    await claimed_by(database, dataset, owner)
    async with database.transaction() as tx:
        await rows.back_off(tx, owner, (await work(psql))["vector_id"], delay=300, code="bad_response", error="odd")
    await edit(psql, MESSAGE, message, "edited")
    (taken,) = await claimed_by(database, dataset, owner)
    assert await psql.fetchval("SELECT error_message FROM embedding_status") is None
    # the holder dies: the wait of the old text is not the new one's either
    await psql.execute("UPDATE embed_work SET lease_until = now() - interval '1 second'")
    assert [row.vector_id for row in await claimed_by(database, dataset, uuid4())] == [taken.vector_id]


async def test_a_row_that_somebody_is_editing_is_left_alone_until_the_edit_is_decided(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    edition = psql.transaction()
    await edition.start()
    await edit(psql, MESSAGE, message, "edited")
    assert await claimed_by(database, dataset, uuid4()) == []
    await edition.commit()
    (taken,) = await claimed_by(database, dataset, uuid4())
    assert taken.text == "edited"


async def test_an_edit_waits_for_an_open_claim_and_then_reopens_the_row(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    async with database.transaction() as tx:
        (taken,) = await claim(tx, dataset, uuid4())
        edition = asyncio.create_task(edit(psql, MESSAGE, message, "edited"))
        await blocked(database, psql)
        assert taken.text == "hello"
    await edition
    (again,) = await claimed_by(database, dataset, uuid4())
    assert again.text == "edited"


async def blocked(database: Database, psql: Any) -> None:
    """Wait until the connection waits for a lock."""
    async with asyncio.timeout(60), database.autocommit() as connection:
        while not await connection.fetchval("SELECT cardinality(pg_blocking_pids($1))", psql.get_server_pid()):
            await asyncio.sleep(0)


async def test_no_claim_under_constant_edits_ever_returns_a_text_of_another_digest(
    psql: Any, database: Database, dataset: DatasetRef
) -> None:
    ids = [await plant(psql, MESSAGE, dataset.id, f"text {number}") for number in range(20)]
    seen: list[ClaimedRow] = []

    async def editor() -> None:
        for number in range(150):
            await edit(psql, MESSAGE, ids[number % len(ids)], f"edit {number}")

    async def claimer() -> None:
        owner = uuid4()
        while not editing.done():
            claimed = await database.with_retries(partial(claim, dataset=dataset, owner=owner))
            seen.extend(claimed)
            async with database.transaction() as tx:
                await rows.release(tx, owner, [row.vector_id for row in claimed])

    editing = asyncio.create_task(editor())
    await asyncio.gather(editing, claimer(), claimer())
    assert any(row.text.startswith("edit") for row in seen)
    assert all(sha256(row.text.encode()).digest() == row.content_hash for row in seen)


async def test_a_text_changed_behind_the_triggers_is_not_claimed_as_the_one_that_was_there(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    await psql.execute("ALTER TABLE messages DISABLE TRIGGER ALL")
    await psql.execute("UPDATE messages SET content = 'changed in secret'")
    assert await claimed_by(database, dataset, uuid4()) == []
    assert await work(psql) is None


@pytest.mark.parametrize("deleted", ["datasets", "projects"])
async def test_a_deleted_dataset_is_never_worked_on(
    psql: Any, database: Database, dataset: DatasetRef, message: int, deleted: str
) -> None:
    await psql.execute(f"UPDATE {deleted} SET deleted_at = now()")
    assert await claimed_by(database, dataset, uuid4()) == []
    async with database.transaction() as tx:
        assert (
            await rows.claim_ids(
                tx, dataset.id, MESSAGE, [message], space_id=dataset.space_id, limit=10, owner=uuid4(), lease=60
            )
            == []
        )
        await datasets.ensure(tx, "river", "log")
    assert len(await claimed_by(database, dataset, uuid4())) == 1


async def test_a_released_row_is_as_it_was(psql: Any, database: Database, dataset: DatasetRef, message: int) -> None:
    owner = uuid4()
    (taken,) = await claimed_by(database, dataset, owner)
    async with database.transaction() as tx:
        await rows.release(tx, owner, [taken.vector_id])
    assert await work(psql) is None
    await claimed_by(database, dataset, owner)
    async with database.transaction() as tx:
        await rows.back_off(tx, owner, taken.vector_id, delay=0, code="bad_response", error="odd answer")
    await claimed_by(database, dataset, owner)
    async with database.transaction() as tx:
        await rows.release(tx, owner, [taken.vector_id])
    left = await work(psql)
    assert (left["attempts"], left["last_error"], left["lease_owner"]) == (1, "odd answer", None)


async def test_a_row_that_backs_off_rests_as_long_as_it_was_told(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    owner = uuid4()
    (taken,) = await claimed_by(database, dataset, owner)
    async with database.transaction() as tx:
        await rows.back_off(tx, owner, taken.vector_id, delay=30, code="bad_response", error="odd answer")
    rest = await psql.fetchval("SELECT extract(epoch FROM not_before - now())::float8 FROM embed_work")
    assert 25 < rest <= 30
    assert await claimed_by(database, dataset, uuid4()) == []
    async with database.read() as tx:
        assert await rows.waiting(tx, dataset.id, dataset.space_id) == (0, 1)
    assert await psql.fetchval("SELECT error_message FROM embedding_status") == "odd answer"
    await psql.execute("UPDATE embed_work SET not_before = now()")
    assert (await claimed_by(database, dataset, uuid4()))[0].attempts == 1


async def test_a_failed_row_is_not_claimed_until_its_text_changes(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    await fail(database, dataset)
    assert await claimed_by(database, dataset, uuid4()) == []
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "FAILED"
    await edit(psql, MESSAGE, message, "edited")
    assert (await claimed_by(database, dataset, uuid4()))[0].attempts == 0


async def fail(database: Database, dataset: DatasetRef) -> ClaimedRow:
    owner = uuid4()
    (taken,) = await claimed_by(database, dataset, owner)
    async with database.transaction() as tx:
        await rows.give_up(tx, owner, [FailedRow(taken.vector_id, taken.content_hash, "bad_input", "refused")])
    return taken


async def test_a_retry_opens_failed_rows_again_one_or_all(psql: Any, database: Database, dataset: DatasetRef) -> None:
    ids = []
    for number in range(3):
        ids.append(await plant(psql, MESSAGE, dataset.id, f"cursed {number}"))
        await fail(database, dataset)
    async with database.transaction() as tx:
        assert await rows.retry(tx, [dataset.id], row=(MESSAGE.kind, ids[1])) == 1
    assert [row.row_id for row in await claimed_by(database, dataset, uuid4())] == [ids[1]]
    async with database.transaction() as tx:
        assert await rows.retry(tx, [uuid4()]) == 0
        assert await rows.retry(tx, [dataset.id]) == 2
    assert [row.row_id for row in await claimed_by(database, dataset, uuid4())] == [ids[0], ids[2]]


async def test_a_discarded_row_counts_as_empty_until_its_text_changes(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    await fail(database, dataset)
    async with database.transaction() as tx:
        assert await rows.discard(tx, [dataset.id]) == 1
        counted = (await monitor.coverage(tx, [dataset.id]))[dataset.id]
    assert (counted.empty, counted.failed, counted.pending) == (1, 0, 0)
    assert await work(psql) is None
    await edit(psql, MESSAGE, message, "edited")
    assert len(await claimed_by(database, dataset, uuid4())) == 1


async def test_whoever_lost_the_lease_changes_nothing_any_more(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    late, owner = uuid4(), uuid4()
    (claimed,) = await claimed_by(database, dataset, late, lease=0)
    (taken,) = await claimed_by(database, dataset, owner)
    before = await work(psql)
    async with database.transaction() as tx:
        await rows.release(tx, late, [taken.vector_id])
        await rows.back_off(tx, late, taken.vector_id, delay=9, code="late", error="late")
        await rows.give_up(tx, late, [FailedRow(claimed.vector_id, claimed.content_hash, "late", "late")])
        assert await rows.renew(tx, late, lease=60) == 0
    assert await work(psql) == before
    assert await psql.fetchval("SELECT failed_hash FROM embeddings") is None


async def test_a_row_that_was_embedded_meanwhile_is_not_given_up(
    psql: Any, database: Database, dataset: DatasetRef, message: int
) -> None:
    owner = uuid4()
    (claimed,) = await claimed_by(database, dataset, owner)
    await embed_all(psql)
    async with database.transaction() as tx:
        await rows.give_up(tx, owner, [FailedRow(claimed.vector_id, claimed.content_hash, "bad_input", "refused")])
    assert await psql.fetchval("SELECT embedding_status FROM embedding_status") == "READY"


async def test_counts_of_what_waits_agree_with_the_claims(psql: Any, database: Database, dataset: DatasetRef) -> None:
    for embeddable in (MESSAGE, MESSAGE, ATOM):
        await plant(psql, embeddable, dataset.id, "hello")
    await claimed_by(database, dataset, uuid4(), limit=1)
    async with database.read() as tx:
        assert await rows.waiting(tx, dataset.id, dataset.space_id) == (2, 3)
        assert await rows.pending_by_kind(tx, dataset.id, dataset.space_id) == {MESSAGE.kind: 2, ATOM.kind: 1}
        assert await monitor.pending(tx, None) == await monitor.pending(tx, [dataset.id]) == 3
        assert await monitor.pending(tx, [uuid4()]) == 0
