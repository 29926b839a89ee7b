"""The tasks: each calls one pipeline function. Retries are kept by PostgreSQL, not by the queue."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from taskiq import AsyncBroker, Context, TaskiqDepends, async_shared_broker

from evervec import log
from evervec.errors import SpaceMismatchError
from evervec.pipeline.batch import router
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.embedding import embed
from evervec.pipeline.extraction import extract, score
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.ingest import telegram
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.sweep import sweep
from evervec.queue import names
from evervec.queue.names import Lane
from evervec.store.schema.embeddables import ATOM, CHUNK, MESSAGE, TOPIC, Embeddable

logger = log.get("tasks")


def opened(context: Annotated[Context, TaskiqDepends()]) -> Resources:
    """Return the open resources of the process that runs the task."""
    resources: Resources = context.state.resources
    return resources


def own_lane(context: Annotated[Context, TaskiqDepends()]) -> Lane:
    """Return the lane in which this task came; the tasks that it sends go into the same one."""
    label = context.message.labels.get("lane")
    return Lane.INTERACTIVE if label == Lane.INTERACTIVE else Lane.BACKFILL


# defaults of the tasks' parameters, so that `.kiq(atom_ids=…)` is all that a caller has to give
OPEN_RESOURCES: Resources = TaskiqDepends(opened)
OWN_LANE: Lane = TaskiqDepends(own_lane)


@async_shared_broker.task(task_name=names.SAVE_TELEGRAM_MESSAGE)
async def save_telegram_message_task(
    message: dict[str, Any], project: str = "telegram", dataset: str = "messages", resources: Resources = OPEN_RESOURCES
) -> dict[str, int]:
    """Save one Telegram message (export or Bot API form), and send tasks for scoring and embedding."""
    report = await telegram.save_message(resources, message, project, dataset)
    return {
        "created": report.created,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "rejected": report.rejections,
    }


@async_shared_broker.task(task_name=names.SCORE_MESSAGE)
async def score_message_task(
    message_id: int, resources: Resources = OPEN_RESOURCES, lane: Lane = OWN_LANE
) -> dict[str, int]:
    """Score one message, and send a task for extraction if it contains knowledge."""
    return await score.score_messages(resources, [message_id], lane=lane)


@async_shared_broker.task(task_name=names.SCORE_MESSAGES)
async def score_messages_batch_task(
    message_ids: list[int], resources: Resources = OPEN_RESOURCES, lane: Lane = OWN_LANE
) -> dict[str, int]:
    """Score many messages."""
    return await score.score_messages(resources, message_ids, lane=lane)


@async_shared_broker.task(task_name=names.EXTRACT_KNOWLEDGE)
async def extract_knowledge_from_messages_task(
    message_ids: list[int], resources: Resources = OPEN_RESOURCES, lane: Lane = OWN_LANE
) -> dict[str, int]:
    """Extract topics, atoms and links from messages, and send tasks to embed them."""
    return await extract.extract_knowledge(resources, message_ids, lane=lane)


@async_shared_broker.task(task_name=names.EMBED_MESSAGES)
async def embed_messages_batch_task(
    message_ids: list[int], provider_id: str | None = None, resources: Resources = OPEN_RESOURCES
) -> dict[str, int]:
    """Embed messages: `{"success", "failed", "skipped"}`."""
    return await _embed(resources, MESSAGE, message_ids, provider_id)


@async_shared_broker.task(task_name=names.EMBED_ATOMS)
async def embed_atoms_batch_task(
    atom_ids: list[int], provider_id: str | None = None, resources: Resources = OPEN_RESOURCES
) -> dict[str, int]:
    """Embed atoms: `{"success", "failed", "skipped"}`."""
    return await _embed(resources, ATOM, atom_ids, provider_id)


@async_shared_broker.task(task_name=names.EMBED_TOPICS)
async def embed_topics_batch_task(
    topic_ids: list[int], provider_id: str | None = None, resources: Resources = OPEN_RESOURCES
) -> dict[str, int]:
    """Embed topics: `{"success", "failed", "skipped"}`."""
    return await _embed(resources, TOPIC, topic_ids, provider_id)


@async_shared_broker.task(task_name=names.EMBED_CHUNKS)
async def embed_chunks_batch_task(
    chunk_ids: list[int], provider_id: str | None = None, resources: Resources = OPEN_RESOURCES
) -> dict[str, int]:
    """Embed chunks: `{"success", "failed", "skipped"}`."""
    return await _embed(resources, CHUNK, chunk_ids, provider_id)


@async_shared_broker.task(task_name=names.INDEX_DATASET)
async def index_dataset_task(
    dataset_id: str,
    changed_ids: dict[str, list[str | int]] | None = None,
    full_rebuild: bool = False,
    resources: Resources = OPEN_RESOURCES,
) -> dict[str, Any]:
    """Index a dataset (uuid or project/slug); ids that come while it is being indexed wait for the next run.

    Without NATS the process that sends this task runs it: the run is requested there, and done by a worker.
    """
    found = await requests.dataset(resources.database, dataset_id)
    run_id = await requests.enqueue(resources, found.id, RunRequest(changed_ids, full_rebuild, trigger="task"))
    done = [] if resources.broker is None else await requests.run_due(resources, found.id)
    return {"run": str(run_id), "runs": [{"id": str(run.id), "state": run.state} | asdict(run.counts) for run in done]}


@async_shared_broker.task(task_name=names.INDEX_WAITING)
async def index_waiting_task(dataset_id: str, resources: Resources = OPEN_RESOURCES) -> dict[str, int]:
    """Do the waiting runs of a dataset."""
    return {"runs": len(await requests.run_due(resources, UUID(dataset_id)))}


@async_shared_broker.task(task_name=names.INDEX_ALL)
async def index_all_datasets_task(
    full_rebuild: bool = False, resources: Resources = OPEN_RESOURCES
) -> dict[str, list[str]]:
    """Request a run of every dataset that has a source, one task a dataset."""
    return {"runs": [str(run_id) for run_id in await requests.index_all_datasets(resources, full_rebuild)]}


@async_shared_broker.task(task_name=names.PROCESS_BATCHES)
async def process_batches_task(resources: Resources = OPEN_RESOURCES) -> dict[str, Any]:
    """Collect the results of finished batch jobs, then submit the rows marked for batch, if they are worth a job."""
    flushed, synced = await BatchManager(resources).process_queue(router.WORTH_A_JOB, only_deferred=True)
    return {
        "ready": synced.ready,
        "failed": synced.failed + synced.online.failed,
        "running": synced.running,
        "problems": synced.problems,
        "sent": flushed.rows,
        "jobs": [str(job.id) for job in flushed.jobs],
    }


@async_shared_broker.task(task_name=names.SWEEP)
async def sweep_task(resources: Resources = OPEN_RESOURCES) -> dict[str, int]:
    """Process what waits and is not leased. Workers also do this by themselves every few seconds."""
    return (await sweep(resources)).as_result()


async def _embed(
    resources: Resources, embeddable: Embeddable, row_ids: list[int], provider_id: str | None
) -> dict[str, int]:
    if provider_id is not None:
        try:
            return (await embed.embed_rows(resources, embeddable, row_ids, UUID(provider_id))).as_result()
        except SpaceMismatchError as error:  # the dataset is searched in another space since: who embeds it now does so
            logger.info("other provider", reason=str(error))
    return (await embed.embed_rows(resources, embeddable, row_ids)).as_result()


def attach(broker: AsyncBroker, resources: Resources) -> None:
    """Send these tasks through a broker, and run them with these resources."""
    async_shared_broker.default_broker(broker)
    broker.state.resources = resources
