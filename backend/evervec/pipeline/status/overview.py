"""What all windows show: coverage by dataset and kind, its mirror, how far extraction is, failures, who embeds."""

from dataclasses import asdict, dataclass
from typing import Any

from evervec.errors import EvervecError
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import mirrors
from evervec.store import datasets, documents, knowledge, messages, monitor, providers
from evervec.store.batch import batch_queue
from evervec.store.monitor import Coverage, Failure
from evervec.store.session import Database


async def status(resources: Resources, *, dataset: str | None = None, project: str | None = None) -> dict[str, Any]:
    """Coverage as one document: totals, every dataset with its kinds, documents, mirror and extraction, provider, batch
    lane, queue."""
    total = Coverage()
    listed = []
    async with resources.database.read() as tx:
        found = await datasets.find(tx, dataset, project)
        covered = await monitor.coverage(tx, [d.id for d in found])
        mirrored = await mirrors.in_short(resources, tx, found)
        for one in found:
            coverage = covered[one.id]
            total.add(coverage)
            progress = await messages.progress(tx, [one.id]) | await knowledge.counts(tx, [one.id])
            name = {"project": one.project, "dataset": one.slug}
            held = await documents.totals(tx, one.id)
            indexed = {"documents": held.documents, "chunks": held.chunks}
            listed.append(name | asdict(coverage) | indexed | {"mirror": mirrored[one.id], "knowledge": progress})
        active = await providers.active(tx)
        batches = await batch_queue.summary(tx)
        watermark = await monitor.watermark(tx)
    return {
        **asdict(total),
        "datasets": listed,
        "provider": None if active is None else describe(active),
        "batches": batches,
        "queue": await queue(resources),
        "watermark": watermark,
    }


def describe(provider: providers.Provider) -> dict[str, Any]:
    """A provider as people read it, without its key."""
    return {
        "id": str(provider.id),
        "name": provider.name,
        "type": provider.type,
        "base_url": provider.base_url,
        "model": provider.model,
        "chat_model": provider.chat_model,
        "dimensions": provider.space.dimensions,
        "template": provider.space.template,
        "chunk_tokens": provider.space.chunk_tokens,
        "text_tokens": provider.space.text_tokens,
        "usd_per_million_tokens": provider.usd_per_million_tokens,
        "active": provider.space.active,
        "paused_seconds": round(provider.paused_seconds, 1),
        "reason": provider.pause_error if provider.paused_seconds > 0 else None,
    }


async def queue(resources: Resources) -> dict[str, Any]:
    """Whether NATS is there, what waits in it, and whether a worker listens."""
    from evervec.queue.depth import depth

    try:
        found = await depth(resources.broker)
        return {
            "up": True,
            "lanes": {str(lane): waiting for lane, waiting in found.lanes.items()},
            "dead_letters": found.dead_letters,
            "worker_listens": found.worker_listens,
        }
    except EvervecError as error:
        return {"up": False, "reason": str(error)}


async def failed(
    database: Database, *, dataset: str | None = None, kind: str | None = None, most: int = 100
) -> list[Failure]:
    """What was given up on, with the reasons."""
    async with database.read() as tx:
        ids = [d.id for d in await datasets.find(tx, dataset)]
        return await monitor.failures(tx, ids, kind=kind, most=most)


@dataclass(frozen=True)
class Knowledge:
    """The largest topics with their surest atoms, and the surest links."""

    counts: dict[str, int]
    topics: list[tuple[str, int, list[tuple[str, str, float]]]]
    links: list[tuple[str, str, str]]


async def extracted(database: Database, *, dataset: str | None = None, topics: int = 4, atoms: int = 3) -> Knowledge:
    """A sample of what extraction found."""
    async with database.read() as tx:
        dataset_ids = [d.id for d in await datasets.find(tx, dataset)]
        found = []
        for topic_id, name, count in await knowledge.largest_topics(tx, dataset_ids, most=topics):
            found.append((name, count, await knowledge.atoms_of_topic(tx, topic_id, most=atoms)))
        links = await knowledge.sample_links(tx, dataset_ids, most=topics)
        return Knowledge(await knowledge.counts(tx, dataset_ids), found, links)
