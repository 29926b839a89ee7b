"""Text into chunks: cut where its structure allows, small enough for the model, and the same again after an edit elsewhere.

Whether a text is cut at a boundary depends on the text around it and never on what was counted before, so an edit
touches the chunks that it is in, and the rest keep their identity (`docs/decisions/0010`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from string import Formatter
from typing import cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from semchunk.semchunk import chunk as torn

from evervec.domain.document import Block, Cut, Document
from evervec.domain.text import is_blank, snippet
from evervec.errors import Refused

VERSION = 1
"""Goes up when the same text and recipe give other chunks."""

FIELDS = ("title", "heading", "text")
TEMPLATE = "{title} › {heading}\n\n{text}"
TOKENS = 256
LEAST_TOKENS = 32

HEAD_SHARE = 4
"""Title and heading may take a fourth of a chunk's tokens; a longer one is shortened, the text never is."""

TORN_AT_ONCE = 20_000
"""Characters of a single block that are torn together: a word of 10 MB is no reason to count 10 MB again and again."""

LEAST_SHARE = 5
"""No cut leaves less than a fifth of the tokens on either side, while there is another choice."""

Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Chunk:
    """A part of a document. `vector_text` is what is embedded, `digest` its SHA-256; lines count from 1, both included."""

    ordinal: int
    content: str
    heading: str
    vector_text: str
    line_start: int
    line_end: int
    tokens: int
    digest: bytes


@dataclass(frozen=True)
class Recipe:
    """How chunks are made for one embedding space: the template of the vector text and the most tokens it may have."""

    template: str = TEMPLATE
    tokens: int = TOKENS
    tokenizer: str = ""

    def __post_init__(self) -> None:
        known = _fields(self.template)
        if "text" not in known or not set(known) <= set(FIELDS):
            raise Refused(
                reason=f"The template {self.template!r} can not be used: it needs {{text}}, and may have {{title}} and "
                "{heading}, nothing else in braces."
            )
        if self.tokens < LEAST_TOKENS:
            raise Refused(reason=f"{self.tokens} tokens are too few for a chunk: give {LEAST_TOKENS} or more.")

    @cached_property
    def key(self) -> str:
        """Equal for equal recipes: documents chunked by another one are chunked again."""
        said = f"{VERSION}\0{self.template}\0{self.tokens}\0{self.tokenizer}"
        return sha256(said.encode()).hexdigest()[:16]

    def vector_text(self, title: str, heading: str, text: str) -> str:
        """What is embedded for a text in its place; a blank text has none. Marks around an absent title go with it."""
        if is_blank(text):
            return ""
        head, _, tail = self.template.partition("{text}")
        filled = head.format(title=title, heading=heading) if title and heading else _without(head, title or heading)
        return f"{filled}{text.strip()}{tail.format(title=title, heading=heading)}"


def _fields(template: str) -> list[str]:
    try:
        parsed = list(Formatter().parse(template))
    except ValueError:
        return []
    # no attribute, index, conversion or format: a template fills in, it does not compute
    return [name if not spec and not conversion else "?" for _, name, spec, conversion in parsed if name is not None]


def _without(head: str, only: str) -> str:
    """The head of a text that has a title or a heading alone, or neither: no mark is left dangling."""
    if not only:
        return ""
    tail = head[len(head.rstrip()) :]
    return f"{only}{tail}"


@dataclass(frozen=True)
class _Piece:
    """What is not cut any further: `mark` says how good a place its start is for a cut, `size` how many tokens it has."""

    start: int
    end: int
    heading: str
    mark: int
    size: int


def chunk(document: Document, blocks: Sequence[Block], recipe: Recipe, count: Count) -> list[Chunk]:
    """The chunks of a document, in order; their contents joined are its text. A document without text has none.

    `blocks` cover the text, else `ValueError`. `count` gives the tokens of each text as the space's model counts them.
    Raises `Refused` when the recipe's template leaves no room for text.
    """
    if not document.text:
        return []
    if not blocks or blocks[-1].end != len(document.text):
        raise ValueError(
            f"{document.uri}: its blocks end at {blocks[-1].end if blocks else 0}, not where its text does"
        )
    return list(_numbered(document.text, _Chunker(document, recipe, count).parts(blocks)))


_Part = tuple[int, int, str, str, int]
"""Start, end, heading, vector text and its tokens."""


class _Chunker:
    """One document's way through: sections first, and only what is too large for the model is cut further."""

    def __init__(self, document: Document, recipe: Recipe, count: Count) -> None:
        self._text, self._recipe, self._count = document.text, recipe, count
        self._most_head = recipe.tokens // HEAD_SHARE // 2
        self._title = self._shortened(document.title)

    def parts(self, blocks: Sequence[Block]) -> Iterator[_Part]:
        """Sections whole where they fit, in parts where they do not."""
        sections = list(_sections(blocks))
        whole = [self._vector_text(start, end, held[0].heading) for start, end, held in sections]
        for (start, end, held), text, tokens in zip(sections, whole, self._count(whole), strict=True):
            if tokens <= self._recipe.tokens:
                yield start, end, held[0].heading, text, tokens
            else:
                yield from self._in_parts(start, held)

    def _in_parts(self, start: int, blocks: Sequence[Block]) -> Iterator[_Part]:
        head = self._recipe.vector_text(self._title, self._shortened(blocks[0].heading), "x")
        room = self._recipe.tokens - self._count([head])[0]
        if room < LEAST_TOKENS // 4:
            raise Refused(
                reason=f"The template {self._recipe.template!r} leaves {room} of {self._recipe.tokens} tokens for the "
                "text: shorten it, or allow more tokens."
            )
        yield from self._fitting(list(self._pieces(start, blocks, room)), room)

    def _fitting(self, pieces: Sequence[_Piece], room: int) -> Iterator[_Part]:
        """Neighbours together up to `room`; less of it where a text has more tokens than its pieces have by themselves."""
        ranges = split(np.array([p.size for p in pieces]), np.array([p.mark for p in pieces]), room)
        texts = [self._vector_text(pieces[lo].start, pieces[hi - 1].end, pieces[lo].heading) for lo, hi in ranges]
        for (lo, hi), text, tokens in zip(ranges, texts, self._count(texts), strict=True):
            if tokens <= self._recipe.tokens:
                yield pieces[lo].start, pieces[hi - 1].end, pieces[lo].heading, text, tokens
            elif hi - lo > 1:
                yield from self._fitting(pieces[lo:hi], room - (tokens - self._recipe.tokens))
            else:
                smaller = max(1, pieces[lo].size // 2)
                yield from self._fitting(list(self._torn(pieces[lo], smaller)), room)

    def _pieces(self, start: int, blocks: Sequence[Block], room: int) -> Iterator[_Piece]:
        bounds = [start, *(block.end for block in blocks)]
        texts = [self._text[begin:end] for begin, end in pairwise(bounds)]
        for begin, block, text, size in zip(bounds, blocks, texts, self._count(texts), strict=False):
            piece = _Piece(begin, block.end, block.heading, _mark(block.cut, text), size)
            if size <= room:
                yield piece
            else:
                yield from self._torn(piece, room)

    def _torn(self, piece: _Piece, room: int) -> Iterator[_Piece]:
        """A piece that is too large by itself, torn between sentences, words or, in the worst case, characters."""
        ends = []
        for begin in range(piece.start, piece.end, TORN_AT_ONCE):
            text = self._text[begin : min(begin + TORN_AT_ONCE, piece.end)]
            found = torn(text, room, lambda part: self._count([part])[0], memoize=False, offsets=True)
            offsets = cast("tuple[list[str], list[tuple[int, int]]]", found)[1]
            ends += [begin + start for start, _ in offsets[1:]] + [begin + len(text)]
        texts = [self._text[begin:end] for begin, end in pairwise([piece.start, *ends])]
        begin, mark = piece.start, piece.mark
        for end, text, size in zip(ends, texts, self._count(texts), strict=True):
            yield _Piece(begin, end, piece.heading, mark if begin == piece.start else _mark(Cut.WORD, text), size)
            begin = end

    def _vector_text(self, start: int, end: int, heading: str) -> str:
        return self._recipe.vector_text(self._title, self._shortened(heading), self._text[start:end])

    def _shortened(self, said: str) -> str:
        """A title or heading with an eighth of a chunk's tokens at most. A token is a byte at least."""
        line = " ".join(said.split())
        while len(line.encode()) > self._most_head and self._count([line])[0] > self._most_head:
            line = snippet(line, max(1, len(line) * 3 // 4))
        return line


def _sections(blocks: Sequence[Block]) -> Iterator[tuple[int, int, list[Block]]]:
    start, held = 0, list[Block]()
    for block in blocks:
        if held and block.cut is Cut.SECTION:
            yield start, held[-1].end, held
            start, held = held[-1].end, []
        held.append(block)
    yield start, held[-1].end, held


def _mark(cut: Cut, text: str) -> int:
    return int(cut) << 32 | crc32(text.strip().encode())


def split(sizes: NDArray[np.int64], marks: NDArray[np.int64], room: int) -> list[tuple[int, int]]:
    """Ranges `(first, end)` of neighbours with at most `room` together; a single one may have more.

    What is too large is cut where the mark is highest, again and again. Marks come from the text at the place, so the
    same cuts are found whatever stands before and behind (a treap's shape depends on its keys, not on their history).
    """
    sums = np.concatenate([[0], np.cumsum(sizes)])
    least = room // LEAST_SHARE
    ranges, left = [], [(0, len(sizes))]
    while left:
        first, end = left.pop()
        if end - first == 1 or sums[end] - sums[first] <= room:
            ranges.append((first, end))
            continue
        low = min(max(int(np.searchsorted(sums, sums[first] + least)), first + 1), end - 1)
        high = max(min(int(np.searchsorted(sums, sums[end] - least, "right")), end), low + 1)
        best = marks[low:high] == marks[low:high].max()
        among = np.flatnonzero(best) + low
        middle = (sums[first] + sums[end]) / 2
        at = int(among[np.abs(sums[among] - middle).argmin()])
        left += [(at, end), (first, at)]
    return ranges


def _numbered(text: str, parts: Iterable[_Part]) -> Iterator[Chunk]:
    line = 1
    for ordinal, (start, end, heading, vector_text, tokens) in enumerate(parts):
        content = text[start:end]
        breaks = content.count("\n")
        last = line + breaks - (content.endswith("\n") and breaks > 0)
        digest = sha256(vector_text.encode()).digest()
        yield Chunk(ordinal, content, heading, vector_text, line, last, tokens, digest)
        line += breaks
