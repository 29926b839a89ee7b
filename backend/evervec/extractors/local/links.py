"""Links between statements, from threads, order, cues and nearness; each link tells how sure it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evervec.domain.extraction.knowledge import AtomType, LinkType
from evervec.domain.protocols import Vectors
from evervec.extractors.local.reading import ReadSentence

MOST_LINKS = 2
"""Links that one statement may start."""

_UNRELATED = 0.14  # cosine below which not even a fix and a problem of one message belong together
_NEAR = 0.62  # cosine from which two statements of different messages speak of one thing
_VERY_NEAR = 0.74
_NAMED = 0.42  # a message names a ticket in one sentence and goes on with something else
_IN_THREAD = 0.18  # in a thread much less is enough
_TROUBLE = frozenset({AtomType.PROBLEM, AtomType.BLOCKER, AtomType.RISK})
_DISPUTED = frozenset({AtomType.DECISION, AtomType.IDEA, AtomType.SOLUTION, AtomType.REQUIREMENT})
_ANSWERS = frozenset({AtomType.SOLUTION, AtomType.DECISION, AtomType.INSIGHT})


@dataclass(frozen=True)
class LinkNode:
    """A statement that may be linked. `read` is missing for what was known before.

    `order` is its place in time; `answers` are the messages that its message replies to, `names` those whose ticket
    it names.
    """

    type: AtomType
    message_ids: frozenset[int]
    order: tuple[int, int]
    topic: str | None
    answers: frozenset[int]
    names: frozenset[int]
    read: ReadSentence | None


@dataclass(frozen=True)
class LinkEdge:
    """`source` <type> `target`, both places in the list of nodes."""

    source: int
    target: int
    type: LinkType
    confidence: float


def link(nodes: Sequence[LinkNode], vectors: Vectors, first_known: int) -> list[LinkEdge]:
    """Return the best links that start at a node before `first_known` (those after it were known already).

    `vectors` `(len(nodes), dim)` is normalised.
    """
    if not nodes:
        return []
    near = vectors @ vectors.T
    found: dict[tuple[int, int], LinkEdge] = {}
    for source in range(first_known):
        edges = [
            edge
            for target in map(int, np.flatnonzero(near[source] >= _UNRELATED))
            if target != source and (edge := _edge(source, target, nodes, float(near[source, target])))
        ]
        for edge in _strongest(edges):
            pair = (min(edge.source, edge.target), max(edge.source, edge.target))
            if pair not in found or found[pair].confidence < edge.confidence:
                found[pair] = edge
    return sorted(found.values(), key=lambda edge: (edge.source, edge.target))


def _strongest(edges: Sequence[LinkEdge]) -> Iterator[LinkEdge]:
    """Yield at most MOST_LINKS links, and only one of "solves": a fix has one problem it was made for."""
    taken: list[LinkEdge] = []
    for edge in sorted(edges, key=lambda edge: (-edge.confidence, edge.target)):
        solved = edge.type is LinkType.SOLVES and any(other.type is LinkType.SOLVES for other in taken)
        if len(taken) < MOST_LINKS and not solved:
            taken.append(edge)
    yield from taken


def _edge(source: int, target: int, nodes: Sequence[LinkNode], near: float) -> LinkEdge | None:
    """Return the link from one node to another, if there is a reason for one. Later statements point at earlier ones."""
    one, other = nodes[source], nodes[target]
    after = one.order > other.order
    if one.message_ids & other.message_ids:
        kind, confidence = _in_message(one, other, near)
    elif other.message_ids & one.answers or (other.message_ids & one.names and near >= _NAMED and after):
        kind, confidence = _in_thread(one, other, near)
    elif after:
        kind, confidence = _by_nearness(one, other, near)
    else:
        return None
    return LinkEdge(source, target, kind, round(min(0.95, confidence), 2)) if kind else None


def _in_message(one: LinkNode, other: LinkNode, near: float) -> tuple[LinkType | None, float]:
    """Judge two statements of one message by order and distance: the fix follows the problem that it fixes."""
    gap = abs(one.order[1] - other.order[1])
    closeness = 0.15 * max(0, 4 - gap) / 4
    after = one.order > other.order
    match one.type, other.type:
        case AtomType.SOLUTION, AtomType.PROBLEM | AtomType.BLOCKER | AtomType.RISK:
            return LinkType.SOLVES, 0.50 + closeness + 0.4 * near
        case AtomType.SOLUTION | AtomType.DECISION | AtomType.INSIGHT, AtomType.QUESTION if after:
            return LinkType.SOLVES, 0.40 + closeness + 0.4 * near
        case AtomType.INSIGHT, AtomType.PROBLEM | AtomType.DECISION | AtomType.SOLUTION if gap <= 2 and near >= 0.15:
            return LinkType.SUPPORTS, 0.40 + closeness + 0.4 * near
        case AtomType.RISK | AtomType.REQUIREMENT, AtomType.SOLUTION | AtomType.DECISION if gap <= 2 and near >= 0.25:
            return LinkType.RELATES_TO, 0.30 + closeness + 0.4 * near
        case first, second if first is second and after and gap == 1 and near >= 0.25:
            return LinkType.CONTINUES, 0.35 + closeness + 0.4 * near
    return None, 0.0


def _in_thread(one: LinkNode, other: LinkNode, near: float) -> tuple[LinkType | None, float]:
    """Judge a statement of a reply, or of a message that names the other's ticket, by what it says about the other."""
    if near < _IN_THREAD:
        return None, 0.0
    sure = 0.45 + 0.5 * near
    for label, kind in _SAID.items():
        if _says(one, label) and (kind is not LinkType.CONTRADICTS or other.type in _DISPUTED):
            return kind, sure
    if one.type is AtomType.SOLUTION and other.type in _TROUBLE:
        return LinkType.SOLVES, sure + 0.1
    if one.type in _ANSWERS and other.type is AtomType.QUESTION:
        return LinkType.SOLVES, sure + 0.1
    if one.type is AtomType.INSIGHT:
        return LinkType.SUPPORTS, sure
    if one.type is AtomType.DECISION and other.type is AtomType.IDEA:
        return LinkType.REFINES, sure
    return (LinkType.CONTINUES if one.type is other.type else LinkType.RELATES_TO), sure - 0.1


def _by_nearness(one: LinkNode, other: LinkNode, near: float) -> tuple[LinkType | None, float]:
    """Judge statements of different threads by nearness alone; a shared topic adds a little."""
    near += 0.04 if one.topic is not None and one.topic == other.topic else 0.0
    if near < _NEAR:
        return None, 0.0
    sure = near - 0.15
    if one.type is AtomType.SOLUTION and other.type in _TROUBLE:
        return LinkType.SOLVES, sure
    if near < _VERY_NEAR or one.type is not other.type:
        return LinkType.RELATES_TO, sure
    return (LinkType.REFINES if _says(one, "refines") else LinkType.CONTINUES), sure


# What a statement says about the one it answers, the plainest first.
_SAID: Mapping[str, LinkType] = {
    "disagrees": LinkType.CONTRADICTS,
    "depends": LinkType.DEPENDS_ON,
    "agrees": LinkType.SUPPORTS,
    "refines": LinkType.REFINES,
    "follows": LinkType.CONTINUES,
}


def _says(node: LinkNode, label: str) -> bool:
    return node.read is not None and node.read.has(label)
