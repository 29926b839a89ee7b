"""Knowledge is extracted from messages: topics, atoms with versions, links. Its hooks ring for their embedding."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, Self
from uuid import UUID

from evervec import log
from evervec.domain.extraction.knowledge import Extraction, LinkType
from evervec.domain.extraction.reconcile import AtomPlan, reconcile
from evervec.errors import LeaseLostError, NoProviderError
from evervec.pipeline.extraction.score import EXTRACT_TOGETHER, MessageLease, isolate_retries
from evervec.pipeline.leases import HeldLease, held
from evervec.pipeline.resources import Resources
from evervec.queue.doorbell import Doorbell, Ring
from evervec.queue.names import EMBED_ATOMS, EMBED_MESSAGES, EMBED_TOPICS, Lane
from evervec.store import datasets, knowledge, messages
from evervec.store.database.session import Database, Tx
from evervec.store.messages import ClaimedMessage

logger = log.get("extract")

RING_AFTER_SECONDS: Final = 0.25


@dataclass
class Extracted:
    """The ids of what was saved for one claim of messages."""

    message_ids: list[int]
    topic_ids: list[int]
    version_created_atom_ids: list[int]
    links: int


async def extract_knowledge(
    resources: Resources, ids: Sequence[int] | UUID, *, lane: Lane = Lane.INTERACTIVE, hooks: bool = True
) -> dict[str, int]:
    """Extract what waits in a dataset, or in the datasets of the given messages, oldest first, some messages at a time.

    Only one extraction runs in a dataset at a time, in whatever process: each step builds on the topics and atoms of the
    one before. A call that finds another one running leaves its messages to that one, or to the next sweep.
    """
    counts = {"messages": 0, "atoms": 0, "topics": 0, "links": 0}
    for dataset_id in await _datasets(resources.database, ids):
        try:
            async with held(resources.database, f"extract:{dataset_id}", resources.settings.lease_seconds) as alone:
                if alone is not None:
                    await _extract_all(resources, alone, dataset_id, counts, lane=lane, hooks=hooks)
        except LeaseLostError as error:
            logger.warning("extraction left to another process", dataset=str(dataset_id), error=str(error))
    return counts


async def _datasets(database: Database, ids: Sequence[int] | UUID) -> list[UUID]:
    if isinstance(ids, UUID):
        return [ids]
    async with database.read() as tx:
        return await messages.datasets_of(tx, ids)


async def _extract_all(
    resources: Resources, alone: HeldLease, dataset_id: UUID, counts: dict[str, int], *, lane: Lane, hooks: bool
) -> None:
    """Extract until nothing is due. What is found is saved only while this is the one extraction of the dataset."""
    lease = MessageLease(resources, await resources.provider())
    embeds = await _who_embeds(resources, dataset_id)
    async with _Hooks(resources.doorbell, dataset_id, embeds, lane) as doorbells:
        while await _is_due(resources.database, dataset_id) and (
            claimed := await lease.claim("extract", dataset_id, EXTRACT_TOGETHER)
        ):
            saved: list[Extracted] = []
            for group in isolate_retries(claimed):
                saved += await _extract_group(alone, lease, group)
            for extracted in saved:
                counts["messages"] += len(extracted.message_ids)
                counts["atoms"] += len(extracted.version_created_atom_ids)
                counts["topics"] += len(extracted.topic_ids)
                counts["links"] += extracted.links
            if not saved:
                break
            if hooks:
                await doorbells.ring_for(saved)


async def _who_embeds(resources: Resources, dataset_id: UUID) -> UUID | None:
    """Return the provider that embeds a dataset, which need not be the one that extracts; None where there is none."""
    async with resources.database.read() as tx:
        dataset = await datasets.by_id(tx, dataset_id)
    with suppress(NoProviderError):
        return None if dataset is None else (await resources.provider_of(dataset)).id
    return None


class _Hooks:
    """The doorbells of one extraction, rung in the background: the queue acknowledges while the next messages are read.

    A doorbell costs about as much for one step as for ten, so quick steps share one: at the pace of any extractor it is
    rung at most `RING_AFTER_SECONDS` and one step after rows are saved. The last one is rung at the end.
    """

    def __init__(self, doorbell: Doorbell, dataset_id: UUID, provider_id: UUID | None, lane: Lane) -> None:
        self._doorbell = doorbell
        self._dataset_id = dataset_id
        self._provider_id = provider_id
        self._lane = lane
        self._saved: list[Extracted] = []
        self._due = monotonic() + RING_AFTER_SECONDS
        self._running: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # also after an error: what was saved before it is committed
        if self._saved:
            await self._ring()
        if self._running is not None:
            await self._running

    async def ring_for(self, saved: Sequence[Extracted]) -> None:
        """Ring for what was saved, now or together with what is saved next."""
        self._saved += saved
        if monotonic() >= self._due:
            await self._ring()

    async def _ring(self) -> None:
        rings = _rings(self._saved, self._dataset_id, self._provider_id, self._lane)
        self._saved, self._due = [], monotonic() + RING_AFTER_SECONDS
        before, self._running = self._running, asyncio.create_task(self._doorbell.ring_many(rings))
        if before is not None:
            await before


async def _is_due(database: Database, dataset_id: UUID) -> bool:
    """Return whether enough messages wait, or none of the dataset is still to be scored: topics need many messages.

    The worker that scores the last of them rings again.
    """
    async with database.read() as tx:
        return await messages.extraction_is_due(tx, dataset_id, EXTRACT_TOGETHER)


def _rings(saved: Sequence[Extracted], dataset_id: UUID, provider_id: UUID | None, lane: Lane) -> list[Ring]:
    """Return the doorbells for what an extraction wrote. A lost one costs time, never a row: the sweep finds it."""
    provider = None if provider_id is None else str(provider_id)
    written = [
        (EMBED_ATOMS, "atom_ids", [atom_id for extracted in saved for atom_id in extracted.version_created_atom_ids]),
        (EMBED_TOPICS, "topic_ids", [topic_id for extracted in saved for topic_id in extracted.topic_ids]),
        (EMBED_MESSAGES, "message_ids", [message_id for extracted in saved for message_id in extracted.message_ids]),
    ]
    return [
        Ring(task, {ids: found, "provider_id": provider}, lane, of=dataset_id) for task, ids, found in written if found
    ]


async def _extract_group(alone: HeldLease, lease: MessageLease, claimed: Sequence[ClaimedMessage]) -> list[Extracted]:
    saved = []
    async with lease.working(claimed):
        for dataset_id in dict.fromkeys(c.dataset_id for c in claimed):
            part = [c for c in claimed if c.dataset_id == dataset_id]
            ids = [c.message.message_id for c in part]
            async with alone.database.read() as tx:
                known = await knowledge.known(tx, dataset_id, ids)
            # a message that is noise now is here because atoms of an earlier revision have to go
            relevant = [c for c in part if c.signal != "noise"]
            await alone.confirm()  # a process that stood still pays for nothing that another one does by now
            asked = partial(lease.extractor.extract, [c.message for c in relevant], known)
            found = await lease.ask(asked, relevant) if relevant else Extraction()
            async with alone.database.transaction() as tx:
                saved.append(await _save(tx, lease, dataset_id, part, found))
    return saved


async def _save(
    tx: Tx, lease: MessageLease, dataset_id: UUID, claimed: Sequence[ClaimedMessage], found: Extraction
) -> Extracted:
    """Save in one transaction what the messages state now, and mark them as extracted; skip those edited meanwhile."""
    await knowledge.lock(tx, dataset_id)
    current = set(await messages.update_messages(tx, lease.owner, claimed))
    ids = [c.message.message_id for c in claimed if c.message.message_id in current]
    drafts = [draft for draft in found.atoms if set(draft.message_ids) <= current or not draft.message_ids]
    known = await knowledge.known(tx, dataset_id, ids)
    plan = reconcile(drafts, known.atoms, ids)
    topics = await knowledge.save_topics(tx, dataset_id, found.topics)
    names = {topic.name.lower(): topic.topic_id for topic in known.topics} | topics
    atom_ids, versioned = await knowledge.save_atoms(tx, dataset_id, plan, names)
    links = await knowledge.link_atoms(tx, _links(found, plan, atom_ids))
    return Extracted(ids, sorted(topics.values()), versioned, links)


def _links(found: Extraction, plan: AtomPlan, atom_ids: dict[int, int]) -> list[tuple[int, LinkType, int, float]]:
    """Turn links between drafts into links between atoms; drafts of messages that were edited meanwhile have no atom."""
    position = {id(draft): index for index, draft in enumerate(plan.drafts)}
    atom = {
        index: atom_ids[position[id(draft)]]
        for index, draft in enumerate(found.atoms)
        if id(draft) in position and position[id(draft)] in atom_ids
    }
    links = []
    for link in found.links:
        source = atom.get(link.source)
        target = link.target_atom_id if link.target is None else atom.get(link.target)
        if source is not None and target is not None:
            links.append((source, link.type, target, link.confidence))
    return links
