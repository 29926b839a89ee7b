"""Knowledge is drawn out of messages: topics, atoms with versions, links. Its hooks ring for embedding."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Self
from uuid import UUID

from evervec.domain.knowledge import Extraction, LinkType
from evervec.domain.reconcile import AtomPlan, reconcile
from evervec.pipeline.extraction.score import EXTRACT_TOGETHER, MessageLease, isolate_retries
from evervec.pipeline.resources import Resources
from evervec.queue.doorbell import Doorbell, Ring
from evervec.queue.names import EMBED_ATOMS, EMBED_MESSAGES, EMBED_TOPICS, Lane
from evervec.store import knowledge, messages
from evervec.store.messages import ClaimedMessage
from evervec.store.session import Tx

RING_AFTER_SECONDS: Final = 0.25


@dataclass
class Extracted:
    """What was saved for one claim of messages."""

    message_ids: list[int]
    topic_ids: list[int]
    version_created_atom_ids: list[int]
    links: int


async def extract_knowledge(
    resources: Resources, ids: Sequence[int] | UUID, *, lane: Lane = Lane.INTERACTIVE, hooks: bool = True
) -> dict[str, int]:
    """Extract what waits in a dataset, or in the datasets of the given messages, oldest first, a batch at a time.

    One extraction at a time in a dataset, wherever it runs: each batch builds on the topics and atoms of the one
    before. Whoever finds the place taken leaves its messages to the one who is at it, or to the next sweep.
    """
    counts = {"messages": 0, "atoms": 0, "topics": 0, "links": 0}
    for dataset_id in await _datasets(resources, ids):
        async with resources.database.advisory_lock(f"extract:{dataset_id}", wait=False) as alone:
            if alone:
                await _extract_all(resources, dataset_id, counts, lane=lane, hooks=hooks)
    return counts


async def _datasets(resources: Resources, ids: Sequence[int] | UUID) -> list[UUID]:
    if isinstance(ids, UUID):
        return [ids]
    async with resources.database.read() as tx:
        return await messages.datasets_of(tx, ids)


async def _extract_all(
    resources: Resources, dataset_id: UUID, counts: dict[str, int], *, lane: Lane, hooks: bool
) -> None:
    provider = await resources.provider()
    shift = MessageLease(resources, provider)
    async with _Bells(resources.doorbell, provider.id, lane) as bells:
        while await _worth_starting(resources, dataset_id) and (
            claimed := await shift.claim("extract", dataset_id, EXTRACT_TOGETHER)
        ):
            saved: list[Extracted] = []
            for group in isolate_retries(claimed):
                saved += await _extract_group(resources, shift, group)
            for extracted in saved:
                counts["messages"] += len(extracted.message_ids)
                counts["atoms"] += len(extracted.version_created_atom_ids)
                counts["topics"] += len(extracted.topic_ids)
                counts["links"] += extracted.links
            if not saved:
                break
            if hooks:
                await bells.ring_for(saved)


class _Bells:
    """The hooks of one extraction, rung behind it: the queue acknowledges while the next batch is read.

    A bell costs about as much for one batch as for ten, so quick batches share one: whatever an extractor's pace, its rows
    are rung for as they are saved, a quarter of a second and a batch late at most. The rest is rung for at the end.
    """

    def __init__(self, doorbell: Doorbell, provider_id: UUID, lane: Lane) -> None:
        self._doorbell = doorbell
        self._provider_id = provider_id
        self._lane = lane
        self._saved: list[Extracted] = []
        self._due = monotonic() + RING_AFTER_SECONDS
        self._running: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # after an error too: what was saved before it is committed
        if self._saved:
            await self._ring()
        if self._running is not None:
            await self._running

    async def ring_for(self, saved: Sequence[Extracted]) -> None:
        """Ring for what was saved, now or together with what follows at once."""
        self._saved += saved
        if monotonic() >= self._due:
            await self._ring()

    async def _ring(self) -> None:
        rings = _hooks(self._saved, self._provider_id, self._lane)
        self._saved, self._due = [], monotonic() + RING_AFTER_SECONDS
        before, self._running = self._running, asyncio.create_task(self._doorbell.ring_many(rings))
        if before is not None:
            await before


async def _worth_starting(resources: Resources, dataset_id: UUID) -> bool:
    """A batch is full, or nobody scores its neighbours any more: a topic is named by what many messages share.

    Whoever scores the last of them rings again.
    """
    async with resources.database.read() as tx:
        return await messages.extraction_is_due(tx, dataset_id, EXTRACT_TOGETHER)


def _hooks(saved: Sequence[Extracted], provider_id: UUID, lane: Lane) -> list[Ring]:
    """Bells for what an extraction wrote. One that nobody hears costs time, never a row: the sweeper finds it."""
    provider = str(provider_id)
    written = [
        (EMBED_ATOMS, "atom_ids", [atom_id for extracted in saved for atom_id in extracted.version_created_atom_ids]),
        (EMBED_TOPICS, "topic_ids", [topic_id for extracted in saved for topic_id in extracted.topic_ids]),
        (EMBED_MESSAGES, "message_ids", [message_id for extracted in saved for message_id in extracted.message_ids]),
    ]
    return [Ring(task, {ids: found, "provider_id": provider}, lane) for task, ids, found in written if found]


async def _extract_group(
    resources: Resources, shift: MessageLease, claimed: Sequence[ClaimedMessage]
) -> list[Extracted]:
    saved = []
    async with shift.working(claimed):
        for dataset_id in dict.fromkeys(c.dataset_id for c in claimed):
            part = [c for c in claimed if c.dataset_id == dataset_id]
            ids = [c.message.message_id for c in part]
            async with resources.database.read() as tx:
                known = await knowledge.known(tx, dataset_id, ids)
            # noise is here only because an earlier revision of it stated something that has to go
            telling = [c.message for c in part if c.signal != "noise"]
            found = await shift.extractor.extract(telling, known) if telling else Extraction()
            async with resources.database.transaction() as tx:
                saved.append(await _save(tx, shift, dataset_id, part, found))
    return saved


async def _save(
    tx: Tx, shift: MessageLease, dataset_id: UUID, claimed: Sequence[ClaimedMessage], found: Extraction
) -> Extracted:
    """One transaction: what the messages state now, and that they are extracted. Nothing if all were edited meanwhile."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", str(dataset_id))
    current = set(await messages.update_messages(tx, shift.owner, claimed))
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
    """Links between drafts as links between atoms: drafts of messages edited meanwhile have none."""
    place = {id(draft): index for index, draft in enumerate(plan.drafts)}
    atom = {
        index: atom_ids[place[id(draft)]]
        for index, draft in enumerate(found.atoms)
        if id(draft) in place and place[id(draft)] in atom_ids
    }
    links = []
    for link in found.links:
        source = atom.get(link.source)
        target = link.target_atom_id if link.target is None else atom.get(link.target)
        if source is not None and target is not None:
            links.append((source, link.type, target, link.confidence))
    return links
