"""Compares a new version of a document with its chunks: which stay, change, are added or deleted."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from evervec.domain.documents.chunking import ChunkDraft


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is in the database."""

    id: int
    ordinal: int
    content: str
    heading: str
    line_start: int | None
    line_end: int | None
    digest: bytes


@dataclass(frozen=True)
class Revision:
    """The changes of a document's chunks.

    `kept` counts chunks whose vector stays; of these `moved` have another position, `reworded` other white space around.
    `updated` have another text in place of the old one, `new` are added, `gone` are deleted.
    """

    kept: int
    moved: list[tuple[int, ChunkDraft]]
    reworded: list[tuple[int, ChunkDraft]]
    updated: list[tuple[int, ChunkDraft]]
    new: list[ChunkDraft]
    gone: list[int]


def revise(stored: Sequence[StoredChunk], chunks: Sequence[ChunkDraft]) -> Revision:
    """Match chunks by digest, wherever they moved; match the rest in order, one new chunk for one old."""
    if not stored:  # as of nearly every document of a first run
        return Revision(0, [], [], [], list(chunks), [])
    rows: dict[bytes, deque[StoredChunk]] = defaultdict(deque)
    for one in stored:
        rows[one.digest].append(one)
    pairs = [(rows[chunk.digest].popleft() if rows[chunk.digest] else None, chunk) for chunk in chunks]
    free = deque(sorted((one for left in rows.values() for one in left), key=lambda one: one.ordinal))
    found = Revision(sum(row is not None for row, _ in pairs), [], [], [], [], [])
    for row, chunk in pairs:
        if row is None and free:
            found.updated.append((free.popleft().id, chunk))
        elif row is None:
            found.new.append(chunk)
        elif row.content != chunk.content:
            found.reworded.append((row.id, chunk))
        elif _place(row) != _place(chunk):
            found.moved.append((row.id, chunk))
    found.gone.extend(one.id for one in free)
    return found


def _place(chunk: StoredChunk | ChunkDraft) -> tuple[int, str, int | None, int | None]:
    return chunk.ordinal, chunk.heading, chunk.line_start, chunk.line_end
