"""The sweep: process waiting rows that no task finished and no lease covers, smallest project first."""

from collections.abc import Callable, Coroutine
from uuid import UUID

from evervec import log
from evervec.domain.documents.chunking import CHUNKING
from evervec.errors import NoProviderError
from evervec.pipeline.attached.follow import follow_elsewhere, follow_tables
from evervec.pipeline.embedding.claimed_rows import EmbedCounts
from evervec.pipeline.embedding.embed import Until, embed_dataset, never, within_time_slice
from evervec.pipeline.embedding.health import check_providers
from evervec.pipeline.extraction.extract import extract_knowledge
from evervec.pipeline.extraction.score import score_messages
from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.better import improve
from evervec.pipeline.spaces.build import fill
from evervec.pipeline.upkeep.janitor import clean_up
from evervec.pipeline.upkeep.triggers import repair_triggers
from evervec.queue.names import Lane
from evervec.store import datasets, messages, runs
from evervec.store.database.session import Database
from evervec.store.embeddings import rows
from evervec.store.words import filling

logger = log.get("sweep")

SWEPT_MESSAGES = 1000


async def get_projects_with_vectorization_count(resources: Resources) -> list[tuple[UUID, str | None, int]]:
    """Return `(project id, root path, pending)` of all live projects, smallest first, so that none waits behind a large one.

    `pending` counts documents still to be chunked and rows still to be embedded.
    """
    async with resources.database.read() as tx:
        return await datasets.pending_by_project(tx, CHUNKING)


async def sweep(resources: Resources) -> EmbedCounts:
    """Process once whatever waits: messages to score and to extract, runs to index, documents to chunk, rows to embed.

    Leases make this safe beside any number of workers and sweeps: what is leased is not claimed again.
    """
    embedded = EmbedCounts()
    for stage in SWEEP_STAGES:
        embedded.add(await stage(resources, never) or EmbedCounts())
    return embedded


async def extract_waiting(resources: Resources, until: Until = never) -> None:
    """Process once the messages that wait to be scored or extracted."""
    for stage in ("score", "extract"):
        if not until():
            await _process_messages(resources, stage)


async def index_waiting(resources: Resources, until: Until = never) -> None:
    """Do once the index runs that are due, and those whose process died."""
    async with resources.database.read() as tx:
        waiting = await runs.datasets_due(tx)
    for dataset_id in waiting:
        if until():
            return
        await requests.run_due(resources, dataset_id)


async def embed_waiting(resources: Resources, until: Until = never) -> EmbedCounts:
    """Embed once the rows that wait; when `until` returns True, only the claims in flight are finished."""
    total = EmbedCounts()
    for project_id, _, pending in await get_projects_with_vectorization_count(resources):
        if pending:
            for dataset_id in await _claimable_datasets(resources.database, project_id):
                try:
                    total.add(await embed_dataset(resources, dataset_id, until=within_time_slice(until)))
                except NoProviderError as error:  # the others have one
                    logger.warning("dataset not embedded", reason=str(error))
    if total != EmbedCounts():
        logger.info("rows swept", embedded=total.success, failed=total.failed)
    return total


async def make_words(resources: Resources, until: Until = never) -> None:
    """Make the words of rows that are due, for search by words; also where nobody embeds."""
    async with resources.database.read() as tx:
        due = await filling.is_due(tx)
    while due and not until():
        due = bool(await filling.fill(resources.database))


async def fill_spaces(resources: Resources, until: Until = never) -> None:
    """Fill once the spaces that are built beside those that are searched."""
    await improve(resources)
    await fill(resources, until)


Stage = Callable[[Resources, Until], Coroutine[None, None, EmbedCounts | None]]
SWEEP_STAGES: tuple[Stage, ...] = (
    repair_triggers,
    check_providers,
    extract_waiting,
    follow_tables,
    follow_elsewhere,
    index_waiting,
    clean_up,
    embed_waiting,
    make_words,
    fill_spaces,
)
"""What a sweep does, in this order; a worker repeats each of them beside the others."""


async def read_dataset(resources: Resources, dataset_id: UUID, _: Until = never) -> None:
    """Score and extract once the messages of a dataset that wait for it."""
    await score_messages(resources, dataset_id)
    await extract_knowledge(resources, dataset_id)


async def index_dataset(resources: Resources, dataset_id: UUID, _: Until = never) -> None:
    """Do once the index runs of a dataset that are due."""
    async with resources.database.read() as tx:
        due = dataset_id in await runs.datasets_due(tx)
    if due:
        await requests.run_due(resources, dataset_id)


async def embed_waiting_of(resources: Resources, dataset_id: UUID, until: Until = never) -> None:
    """Embed once the rows of a dataset that wait, for one time slice, unless an index run embeds them itself."""
    async with resources.database.read() as tx:
        busy = dataset_id in await runs.embedding_datasets(tx)
    if not busy:
        await embed_dataset(resources, dataset_id, until=within_time_slice(until))


DatasetStage = Callable[[Resources, UUID, Until], Coroutine[None, None, None]]
DATASET_STAGES: tuple[DatasetStage, ...] = (read_dataset, index_dataset, embed_waiting_of)
"""What is done for one dataset that a doorbell named; what it leaves, the sweep finds."""


async def _process_messages(resources: Resources, stage: str) -> None:
    async with resources.database.read() as tx:
        waiting = await messages.waiting(tx, stage, limit=SWEPT_MESSAGES)
    for ids in waiting.values():
        if stage == "score":
            await score_messages(resources, ids, lane=Lane.BACKFILL)
        else:
            await extract_knowledge(resources, ids, lane=Lane.BACKFILL)


async def _claimable_datasets(database: Database, project_id: UUID) -> list[UUID]:
    async with database.read() as tx:
        busy = await runs.embedding_datasets(tx)
        live = [d for d in await datasets.live(tx) if d.project_id == project_id and d.id not in busy]
        return [one.id for one in live if (await rows.waiting(tx, one.id, one.space_id))[0]]
