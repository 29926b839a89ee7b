"""What all entry points show: coverage by dataset and kind, its mirror, how far extraction is, failures, who embeds."""

from dataclasses import dataclass
from uuid import UUID

from evervec.domain.attachment import Key
from evervec.domain.encoders import LONG_TEXTS
from evervec.errors import EvervecError
from evervec.pipeline.attached import report
from evervec.pipeline.attached.report import AttachmentReport
from evervec.pipeline.budget import prices
from evervec.pipeline.embedding.failures import ATTACHED
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.progress import BuildStatus, builds_of
from evervec.pipeline.status import mirrors
from evervec.pipeline.status.mirrors import MirrorSummary
from evervec.store import datasets, documents, knowledge, messages, monitor, providers
from evervec.store.attached import failures
from evervec.store.batch import batch_queue
from evervec.store.breakers import DRIFTED
from evervec.store.budget import budgets, ledger
from evervec.store.budget.budgets import Budget
from evervec.store.budget.ledger import Reuse
from evervec.store.database.session import Database
from evervec.store.monitor import Coverage, Failure, LongText
from evervec.store.rings.doorbell import worker_listens
from evervec.store.schema import integrity
from evervec.store.schema.integrity import TriggerProblem


@dataclass(frozen=True, kw_only=True)
class KnowledgeProgress:
    """How far scoring and extraction of a dataset's messages are, and what was found."""

    messages: int
    unscored: int
    unextracted: int
    dead: int
    topics: int
    atoms: int
    links: int

    @property
    def waiting(self) -> int:
        """Return how many messages wait to be scored or extracted."""
        return self.unscored + self.unextracted


@dataclass(frozen=True, kw_only=True)
class DatasetStatus:
    """One dataset: its rows by state and kind, its documents, its mirror, its extraction."""

    project: str
    dataset: str
    rows: int
    embedded: int
    pending: int
    failed: int
    empty: int
    kinds: dict[str, Coverage]
    documents: int
    chunks: int
    mirror: MirrorSummary
    knowledge: KnowledgeProgress


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """A provider without its key.

    `extracts` is whether its chat model, if it has one, scores and extracts. `paused_seconds` and `reason` tell whether it
    is backing off, and why; `drifted` that its model does not embed as it did.
    """

    id: UUID
    name: str
    type: str
    base_url: str | None
    model: str
    chat_model: str | None
    extracts: bool
    dimensions: int
    template: str
    chunk_tokens: int
    text_tokens: int | None
    long_texts: str
    usd_per_million_tokens: float | None
    active: bool
    paused_seconds: float
    drifted: bool
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """The batch way in short: open jobs, rows in them, and rows that wait to be sent."""

    jobs: int
    rows: int
    waiting: int


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """What carries the doorbells, `nats` or `postgres`, and whether it answers.

    If it does: tasks by lane (PostgreSQL keeps none), dead letters and whether a worker listens; if not, the reason.
    """

    kind: str
    up: bool
    lanes: dict[str, int] | None = None
    dead_letters: int | None = None
    worker_listens: bool | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Rows by state, in all and by dataset; the active provider, the batch jobs, the queue.

    `watermark` is the transaction id below which everything is counted, `problems` what is wrong with our triggers, and
    `attachments` are the tables that are embedded in place. `reuse` tells how many rows got the vector of an equal text,
    `budgets` what was used of each, and which ceiling is reached. `builds` are the spaces that are not searched: the next
    one of a dataset, with how far it is, or the one that is kept for a rollback.
    """

    rows: int
    embedded: int
    pending: int
    failed: int
    empty: int
    datasets: list[DatasetStatus]
    provider: ProviderStatus | None
    batches: BatchStatus
    queue: QueueStatus
    watermark: str
    problems: list[TriggerProblem]
    attachments: list[AttachmentReport]
    reuse: Reuse
    budgets: list[Budget]
    builds: list[BuildStatus]

    @property
    def unread(self) -> int:
        """Return how many messages wait to be scored or extracted."""
        return sum(one.knowledge.waiting for one in self.datasets)


async def status(resources: Resources, *, dataset: str | None = None, project: str | None = None) -> Overview:
    """Return the state of everything, or of one dataset or project.

    Raises `UnknownDatasetError` and `UnknownProjectError`. A queue that does not answer is no error.
    """
    total = Coverage()
    listed = []
    async with resources.database.read() as tx:
        found = await datasets.find(tx, dataset, project)
        covered = await monitor.coverage(tx, [d.id for d in found])
        for dataset_id, count in (await failures.counts_of_datasets(tx, [d.id for d in found])).items():
            # rows of attached tables that could not be read have no record of their own
            unread = Coverage(rows=count, failed=count)
            covered[dataset_id].kinds[ATTACHED] = unread
            covered[dataset_id].add(unread)
        mirrored = await mirrors.summaries(resources, tx, found)
        for one in found:
            total.add(covered[one.id])
            held = await documents.totals(tx, one.id, one.space_id)
            progress = await messages.progress(tx, [one.id]) | await knowledge.counts(tx, [one.id])
            listed.append(
                DatasetStatus(
                    project=one.project,
                    dataset=one.slug,
                    **vars(covered[one.id]),
                    documents=held.documents,
                    chunks=held.chunks,
                    mirror=mirrored[one.id],
                    knowledge=KnowledgeProgress(**progress),
                )
            )
        active = await providers.active(tx)
        batches = BatchStatus(**await batch_queue.summary(tx))
        watermark = await monitor.watermark(tx)
        problems = await integrity.problems(tx, resources.database.schema)
        reuse = await ledger.reuse(tx, [one.id for one in found])
        limited = await budgets.every(tx)
        builds = await builds_of(tx, found)
    return Overview(
        **vars(total),
        datasets=listed,
        provider=None if active is None else describe(active),
        batches=batches,
        queue=await queue(resources),
        watermark=watermark,
        problems=problems,
        attachments=await report.attachments(resources, project),
        reuse=reuse,
        budgets=limited,
        builds=builds,
    )


def describe(provider: providers.Provider) -> ProviderStatus:
    """Return a provider as people read it."""
    return ProviderStatus(
        id=provider.id,
        name=provider.name,
        type=provider.type,
        base_url=provider.base_url,
        model=provider.model,
        chat_model=provider.chat_model,
        extracts=provider.extracts,
        dimensions=provider.space.dimensions,
        template=provider.space.template,
        chunk_tokens=provider.space.chunk_tokens,
        text_tokens=provider.space.text_tokens,
        long_texts=provider.encoder.long_texts or LONG_TEXTS[0],
        usd_per_million_tokens=prices.of_embedding(provider),
        active=provider.space.active,
        paused_seconds=round(provider.breaker.seconds, 1),
        drifted=provider.breaker.code == DRIFTED,
        reason=provider.breaker.error if provider.breaker.is_open else None,
    )


async def queue(resources: Resources) -> QueueStatus:
    """Return whether the queue is there, what waits in it, and whether a worker listens."""
    kind = resources.settings.queue_kind
    if resources.broker is None:
        async with resources.database.read() as tx:
            listens = await worker_listens(tx, resources.settings.database_schema)
        return QueueStatus(kind=kind, up=True, worker_listens=listens)
    from evervec.queue.depth import depth

    try:
        found = await depth(resources.broker)
    except EvervecError as error:
        return QueueStatus(kind=kind, up=False, reason=str(error))
    return QueueStatus(
        kind=kind,
        up=True,
        lanes={str(lane): waiting for lane, waiting in found.lanes.items()},
        dead_letters=found.dead_letters,
        worker_listens=found.worker_listens,
    )


async def failed(
    database: Database, *, dataset: str | None = None, kind: str | None = None, most: int = 100
) -> list[Failure]:
    """Return the rows that were given up, with the reasons."""
    async with database.read() as tx:
        ids = [d.id for d in await datasets.find(tx, dataset)]
        found = await monitor.failures(tx, ids, kind=kind, most=most)
        if kind in (None, ATTACHED):
            scope = None if dataset is None else ids
            found += [
                Failure(ATTACHED, one.id, one.dataset or "", "unreadable", one.reason, _named(one.table, one.key))
                for one in await failures.listed(tx, scope, limit=most)
            ]
        return found[:most]


async def long_texts(database: Database, *, dataset: str | None = None, most: int = 100) -> list[LongText]:
    """Return the rows whose text is longer than the model takes, in windows or refused."""
    async with database.read() as tx:
        return await monitor.long_texts(tx, [d.id for d in await datasets.find(tx, dataset)], most=most)


def _named(table: str, key: Key) -> str:
    return f"{table} {', '.join(map(str, key))}"


@dataclass(frozen=True)
class KnowledgeSample:
    """The largest topics with their surest atoms, and the surest links."""

    counts: dict[str, int]
    topics: list[tuple[str, int, list[tuple[str, str, float]]]]
    links: list[tuple[str, str, str]]


async def extracted(
    database: Database, *, dataset: str | None = None, topics: int = 4, atoms: int = 3
) -> KnowledgeSample:
    """Return a sample of what extraction found."""
    async with database.read() as tx:
        dataset_ids = [d.id for d in await datasets.find(tx, dataset)]
        found = []
        for topic_id, name, count in await knowledge.largest_topics(tx, dataset_ids, most=topics):
            found.append((name, count, await knowledge.atoms_of_topic(tx, topic_id, most=atoms)))
        links = await knowledge.sample_links(tx, dataset_ids, most=topics)
        return KnowledgeSample(await knowledge.counts(tx, dataset_ids), found, links)
