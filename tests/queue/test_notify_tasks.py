"""`.kiq()` without NATS: what the database knows becomes a ring, what only the arguments say is done by whoever sends it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from taskiq import SendTaskError
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.exceptions import UnknownTaskError
from taskiq.kicker import AsyncKicker

from evervec.errors import Refused, UnknownDatasetError
from evervec.pipeline.indexing import source_registry
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.runtime import Runtime
from evervec.settings import Settings
from evervec.store.rings.doorbell import PostgresDoorbell
from evervec.worker import tasks
from tests.queue.ringing import Heard, hearing, runtime
from tests.queue.waiting import eventually

MESSAGE = {
    "message_id": 7,
    "date": int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()),
    "chat": {"id": -1001234, "type": "supergroup"},
    "from": {"id": 1, "first_name": "Mara"},
    "text": "We have a bug: the worker hangs for ever after a restart.",
}


@pytest.fixture
async def sender(database_url: str, settings: Settings) -> AsyncIterator[Runtime]:
    """Open a process that sends tasks and runs no worker."""
    async with runtime(database_url, settings) as opened:
        tasks.attach(opened.broker, opened.resources)
        yield opened


@pytest.fixture
async def heard(sender: Runtime) -> AsyncIterator[Heard]:
    doorbell = sender.resources.doorbell
    assert isinstance(doorbell, PostgresDoorbell)
    async with hearing(doorbell) as found:
        yield found


async def test_a_task_about_rows_of_the_database_is_a_ring(sender: Runtime, heard: Heard) -> None:
    await tasks.embed_atoms_batch_task.kiq(atom_ids=[1, 2], provider_id=None)
    await eventually(lambda: heard.work == [None])
    for sent in (tasks.embed_messages_batch_task, tasks.score_messages_batch_task):
        await sent.kiq([3])
    await tasks.sweep_task.kiq()
    await eventually(lambda: len(heard.work) >= 2)
    assert set(heard.work) == {None}


async def test_a_message_that_only_the_task_knows_is_saved_before_kiq_returns(
    sender: Runtime, heard: Heard, psql: Any
) -> None:
    sender.broker.with_result_backend(InmemoryResultBackend())
    sent = await tasks.save_telegram_message_task.kiq(message=MESSAGE, project="river", dataset="log")
    row = await psql.fetchrow("SELECT author, dataset_id FROM messages")
    assert row["author"] == "Mara"
    assert (await sent.wait_result(timeout=60)).return_value["created"] == 1
    await eventually(lambda: row["dataset_id"] in heard.work)


async def test_the_run_of_an_index_task_is_requested_before_kiq_returns(
    sender: Runtime, heard: Heard, tmp_path: Path, psql: Any
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# Rivers\nThey flow.\n")
    await source_registry.register_files(sender.resources.database, "river", "notes", FileSelection((folder,)))
    await tasks.index_dataset_task.kiq("river/notes", full_rebuild=True)
    run = await psql.fetchrow("SELECT state, mode, dataset_id FROM index_runs ORDER BY created_at DESC LIMIT 1")
    assert (run["state"], run["mode"]) == ("queued", "full")
    await eventually(lambda: run["dataset_id"] in heard.work)


async def test_what_fails_in_place_fails_for_the_sender(sender: Runtime) -> None:
    with pytest.raises(SendTaskError) as caught:
        await tasks.index_dataset_task.kiq("no/such")
    assert isinstance(caught.value.__cause__, UnknownDatasetError)


@pytest.mark.parametrize("arguments", [{"atom_ids": "x"}, {"atoms": [1]}, {}])
async def test_arguments_that_do_not_fit_are_refused(sender: Runtime, arguments: dict[str, Any]) -> None:
    with pytest.raises(SendTaskError) as caught:
        await tasks.embed_atoms_batch_task.kiq(**arguments)
    assert isinstance(caught.value.__cause__, Refused)


async def test_a_task_of_the_user_runs_in_place(sender: Runtime) -> None:
    done = []

    @sender.broker.task(task_name="theirs")
    async def theirs(number: int) -> None:
        done.append(number)

    await theirs.kiq(5)
    assert done == [5]


async def test_an_unknown_task_is_refused(sender: Runtime) -> None:
    kicker: AsyncKicker[Any, Any] = AsyncKicker("nobody", sender.broker, {})
    with pytest.raises(SendTaskError) as caught:
        await kicker.kiq()
    assert isinstance(caught.value.__cause__, UnknownTaskError)
