"""The local extractor: rules over cue words and a local embedder. It needs no LLM and no network, and is no LLM."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evervec.domain.extraction.knowledge import (
    AtomDraft,
    DatasetKnowledge,
    Extraction,
    KnownAtom,
    LinkDraft,
    MessageText,
    Score,
    Scores,
)
from evervec.domain.protocols import Embedder, Vectors
from evervec.extractors.local.atoms import Statement, same_key, statements
from evervec.extractors.local.lexicons import lexicons, technical_words
from evervec.extractors.local.links import LinkEdge, LinkNode, link
from evervec.extractors.local.reading import ReadMessage, read
from evervec.extractors.local.scoring import score
from evervec.extractors.local.sentences import READ_AT_MOST, collapse
from evervec.extractors.local.topics import Grouping, TopicMember, group

_CHAT = 600  # characters up to which a message without a title is about one thing
_THREAD = 3  # replies up a thread that a message still speaks to


@dataclass(frozen=True)
class _Found:
    """A statement with the messages that make it, the first of them in `reading`."""

    statement: Statement
    reading: ReadMessage
    message_ids: tuple[int, ...]


class LocalExtractor:
    """An extractor by rules: scores by named factors, keeps statements, names topics by shared phrases, links by rules.

    The same messages and the same knowledge always give the same answer. `embedder` tells how near two texts are in meaning.
    """

    name = "local"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def score(self, messages: Sequence[MessageText]) -> Scores:
        """Return one score per message, in the order given."""
        return Scores(await asyncio.to_thread(_scores, messages))

    async def extract(self, messages: Sequence[MessageText], known: DatasetKnowledge) -> Extraction:
        """Return topics, atoms and links of the messages.

        What a known atom says already comes back with its very title and content, so that whoever stores it sees
        the same statement. Raise the embedder's `ProviderError`.
        """
        readings, found = await asyncio.to_thread(_find, messages, known)
        if not found:
            return Extraction()
        grouping = await self._group(readings, found, known)
        atoms = [_draft(one, topic) for one, topic in zip(found, grouping.names, strict=True)]
        edges = await self._link(readings, found, grouping, known)
        return Extraction(grouping.new, atoms, _links(edges, len(atoms), known))

    async def aclose(self) -> None:
        """Do nothing: the embedder belongs to whoever opened it."""

    async def _group(
        self, readings: Sequence[ReadMessage], found: Sequence[_Found], known: DatasetKnowledge
    ) -> Grouping:
        answered = _answered(readings)
        members = [
            TopicMember(
                _context(one), one.reading.title, first, one.statement.read.lexicon, tuple(sorted(answered[first]))
            )
            for one in found
            for first in one.message_ids[:1]
        ]
        vectors = await self._embed([f"{one.reading.title} {one.statement.content}" for one in found])
        topics = await self._embed([f"{topic.name}: {topic.description}" for topic in known.topics])
        return await asyncio.to_thread(group, members, vectors, known, topics)

    async def _link(
        self, readings: Sequence[ReadMessage], found: Sequence[_Found], grouping: Grouping, known: DatasetKnowledge
    ) -> list[LinkEdge]:
        news = {one.statement.content for one in found}
        answered, named = _answered(readings), _named(readings)
        nodes = [_node(one, topic, answered, named) for one, topic in zip(found, grouping.names, strict=True)]
        nodes += [_known_node(atom) for atom in known.atoms]
        vectors = await self._embed([*(one.statement.content for one in found), *(one.content for one in known.atoms)])
        edges = await asyncio.to_thread(link, nodes, vectors, len(found))
        repeated = {len(found) + at for at, atom in enumerate(known.atoms) if atom.content in news}
        return [edge for edge in edges if edge.target not in repeated]

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        """Return normalised vectors `(len(texts), dim)`; zeros for a text without a token."""
        most = self._embedder.limits.texts
        parts = [await self._embedder.embed(texts[at : at + most]) for at in range(0, len(texts), most)]
        if not parts:
            return np.zeros((0, 1), np.float32)
        vectors = np.nan_to_num(np.concatenate(parts))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _scores(messages: Sequence[MessageText]) -> list[Score]:
    return [score(read(message, lexicons()), technical_words()) for message in messages]


def _find(messages: Sequence[MessageText], known: DatasetKnowledge) -> tuple[list[ReadMessage], list[_Found]]:
    """Return every statement once, in order of first appearance, with all the messages that make it."""
    readings = [read(message, lexicons()) for message in messages]
    before = {same_key(atom.content): atom for atom in known.atoms}
    found: dict[str, _Found] = {}
    for reading in readings:
        for statement in statements(reading):
            key, message_id = same_key(statement.content), reading.message.message_id
            if key in found:
                ids = dict.fromkeys((*found[key].message_ids, message_id))
                found[key] = replace(found[key], message_ids=tuple(ids))
            else:
                found[key] = _Found(_as_known(statement, before.get(key)), reading, (message_id,))
    return readings, list(found.values())


def _as_known(statement: Statement, atom: KnownAtom | None) -> Statement:
    if atom is None:
        return statement
    return replace(statement, type=atom.type, title=atom.title, content=atom.content)


def _draft(one: _Found, topic: str | None) -> AtomDraft:
    said = one.statement
    return AtomDraft(said.type, said.title, said.content, said.confidence, one.message_ids, topic)


def _context(one: _Found) -> str:
    """Return the text that tells the topic of a statement: itself, or all of a short chat message, which is about one thing."""
    text = collapse(one.reading.message.text[:READ_AT_MOST])
    return one.statement.content if one.reading.title or len(text) > _CHAT else text


def _answered(readings: Sequence[ReadMessage]) -> dict[int, frozenset[int]]:
    """Return for each message the ones above it in its thread."""
    replies = {reading.message.message_id: reading.message.reply_to for reading in readings}
    return {message_id: frozenset(_thread(above, replies)) for message_id, above in replies.items()}


def _named(readings: Sequence[ReadMessage]) -> dict[int, frozenset[int]]:
    """Return for each message the ones whose ticket it names."""
    owners = {reading.own_ticket: reading.message.message_id for reading in readings if reading.own_ticket}
    return {
        reading.message.message_id: frozenset(owners[ticket] for ticket in reading.tickets if ticket in owners)
        for reading in readings
    }


def _thread(message_id: int | None, replies: Mapping[int, int | None]) -> Iterator[int]:
    """Yield a message that is replied to and the ones before it in the thread, nearest first."""
    for _ in range(_THREAD):
        if message_id is None:
            return
        yield message_id
        message_id = replies.get(message_id)


def _node(
    one: _Found, topic: str | None, answered: Mapping[int, frozenset[int]], named: Mapping[int, frozenset[int]]
) -> LinkNode:
    first, said = one.message_ids[0], one.statement
    order = (first, said.read.sentence.position)
    return LinkNode(said.type, frozenset(one.message_ids), order, topic, answered[first], named[first], said.read)


def _known_node(atom: KnownAtom) -> LinkNode:
    order = (min(atom.message_ids, default=0), 0)
    return LinkNode(atom.type, frozenset(atom.message_ids), order, atom.topic, frozenset(), frozenset(), None)


def _links(edges: Sequence[LinkEdge], atoms: int, known: DatasetKnowledge) -> list[LinkDraft]:
    return [
        LinkDraft(edge.source, edge.type, edge.confidence, target=edge.target)
        if edge.target < atoms
        else LinkDraft(edge.source, edge.type, edge.confidence, target_atom_id=known.atoms[edge.target - atoms].atom_id)
        for edge in edges
    ]
