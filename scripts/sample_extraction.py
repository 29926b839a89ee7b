#!/usr/bin/env python
"""Prints what the local extractor makes of a Telegram export, for reading with a critical eye; nothing is stored."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evervec.domain.extraction.knowledge import (
    AtomType,
    DatasetKnowledge,
    KnownAtom,
    KnownTopic,
    LinkType,
    MessageText,
    Score,
)
from evervec.domain.extraction.message import IncomingMessage
from evervec.embedders.local.embedder import LocalEmbedder
from evervec.extractors.local.extractor import LocalExtractor
from evervec.sources.telegram.demo import demo_chat_path
from evervec.sources.telegram.reader import read_export

BATCH, REMEMBERED = 50, 200

Link = tuple[KnownAtom, LinkType, KnownAtom]


def main(
    path: Annotated[Path, typer.Argument(help="A Telegram Desktop export.")] = demo_chat_path(),  # noqa: B008
    atoms: Annotated[int, typer.Option(help="Atoms to show.")] = 100,
    links: Annotated[int, typer.Option(help="Links to show.")] = 40,
    seed: Annotated[int, typer.Option(help="The sample is the same for the same seed.")] = 1,
) -> None:
    """Score and extract a whole export in batches, as the pipeline does, and print a random sample."""
    asyncio.run(_sample(_messages(path), atoms, links, random.Random(seed)))


def _messages(path: Path) -> list[MessageText]:
    read = [message for message in read_export(path) if isinstance(message, IncomingMessage) and message.text.strip()]
    numbers = {message.external_id: number for number, message in enumerate(read, start=1)}
    return [
        MessageText(numbers[one.external_id], one.text, one.author, one.sent_at, numbers.get(one.reply_to or ""))
        for one in read
    ]


async def _sample(messages: Sequence[MessageText], atoms: int, links: int, chance: random.Random) -> None:
    extractor = LocalExtractor(LocalEmbedder())
    before = time.perf_counter()
    scores = await extractor.score(messages)
    topics, found, linked = await _extract(extractor, messages)
    seconds = time.perf_counter() - before
    print(f"{len(messages)} messages, {len(found)} atoms, {len(topics)} topics, {len(linked)} links, {seconds:.2f} s")
    _print_counts(scores.scores, found)
    _print_topics(topics, found)
    print("\n## Atoms")
    for atom in sorted(chance.sample(found, min(atoms, len(found))), key=lambda atom: (atom.type, atom.atom_id)):
        print(f"- {atom.type} ({atom.message_ids[0]}) **{atom.title}**\n  {atom.content}")
    print("\n## Links")
    for source, kind, target in chance.sample(linked, min(links, len(linked))):
        print(f"- {source.type}: {source.content[:120]}\n  *{kind}* {target.type}: {target.content[:120]}")


async def _extract(
    extractor: LocalExtractor, messages: Sequence[MessageText]
) -> tuple[list[KnownTopic], list[KnownAtom], list[Link]]:
    topics: list[KnownTopic] = []
    atoms: list[KnownAtom] = []
    links: list[Link] = []
    for start in range(0, len(messages), BATCH):
        found = await extractor.extract(messages[start : start + BATCH], DatasetKnowledge(topics, atoms[-REMEMBERED:]))
        first = len(atoms)
        topics += [KnownTopic(len(topics) + at, one.name, one.description) for at, one in enumerate(found.topics, 1)]
        atoms += [
            KnownAtom(first + at, one.type, one.title, one.content, one.topic, one.message_ids)
            for at, one in enumerate(found.atoms)
        ]
        for link in found.links:
            target = first + link.target if link.target is not None else link.target_atom_id or 0
            links.append((atoms[first + link.source], link.type, atoms[target]))
    return topics, atoms, links


def _print_counts(scores: Sequence[Score], atoms: Sequence[KnownAtom]) -> None:
    signals, kinds = Counter(score.signal for score in scores), Counter(atom.type for atom in atoms)
    print(", ".join(f"{count} {signal}" for signal, count in signals.most_common()))
    print(", ".join(f"{kinds[kind]} {kind}" for kind in AtomType))


def _print_topics(topics: Sequence[KnownTopic], atoms: Sequence[KnownAtom]) -> None:
    print("\n## Topics")
    for topic in topics:
        members = [atom.title for atom in atoms if atom.topic == topic.name]
        print(f"- **{topic.name}** ({len(members)}): {'; '.join(members[:3])}")


if __name__ == "__main__":
    typer.run(main)
