"""Text into chunks: cut where its structure allows, small enough for the model, and stable under edits elsewhere.

Whether neighbours share a chunk depends on the text around them and never on what was counted before, so an edit
changes only the chunks that it touches (`docs/decisions/0010`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from string import Formatter
from sys import maxsize
from typing import cast
from zlib import crc32

from evervec.domain.documents.document import Block, Cut, IncomingDocument
from evervec.domain.text import is_blank, snippet
from evervec.errors import Refused

CHUNKING = "chunking 1"
"""Increased when the same text and recipe give other chunks."""

FIELDS = ("title", "heading", "text")
TEMPLATE = "{title} › {heading}\n\n{text}"
CHUNK_TOKENS = 256
LEAST_TOKENS = 32

HEAD_SHARE = 8
"""Title and heading may each take an eighth of a chunk's tokens; a longer one is shortened, the text never is."""

LEAST_TEXT_TOKENS = LEAST_TOKENS // 4

MOST_CHARACTERS_A_TOKEN = 8
"""Characters of a token, more than in any usual text: a text that is longer by this measure is too large without counting."""

SPLIT_CHARACTERS = 16_384
"""Characters of a single block that are split at a time, so that a word of 10 MB is not searched again and again."""

SPLIT_SHARE = 2
"""A block that is too large is split into parts of at most half the room, about a sentence, so that an edit affects few."""

CHARACTER_BYTES = 4

CLOSING = "\n\"')]}”’»*_"
ENDS = (".", "!", "?", "…", ":", "。", "！", "？", "؟", "।")
"""The ends of a sentence, which characters of `CLOSING` may follow."""

ONE_SECTION = frozenset({"plain"})
"""Formats without headings: the whole text is one section."""

Count = Callable[[Sequence[str]], list[int]]

_Spans = tuple[list[str], list[tuple[int, int]]]


@dataclass(frozen=True)
class ChunkDraft:
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
    """How chunks are made for one embedding space: the template of the vector text and the most tokens it may have.

    A template holds `{text}` once, and `{title}` and `{heading}` if wanted; `{{` and `}}` are braces. The words before its
    first field and after its last one are always there. The words between two fields stand before the second one, unless
    that is empty or no field came before it: no separator is left over.
    """

    template: str = TEMPLATE
    tokens: int = CHUNK_TOKENS

    def __post_init__(self) -> None:
        names = [name for _, name in self._parsed[0]]
        if names.count("text") != 1 or not set(names) <= set(FIELDS):
            raise self._refused("it needs {text} once and may have {title} and {heading}, nothing else in braces")
        if self.tokens < LEAST_TOKENS:
            raise Refused(reason=f"{self.tokens} tokens are too few for a chunk: give {LEAST_TOKENS} or more.")

    def vector_text(self, title: str, heading: str, text: str) -> str:
        """Return what is embedded for a text with its title and heading; "" for a blank text."""
        if is_blank(text):
            return ""
        fields, closing = self._parsed
        values = {"title": title, "heading": heading, "text": text.strip()}
        said = [(words, values[name]) for words, name in fields if values[name]]
        return fields[0][0] + said[0][1] + "".join(words + value for words, value in said[1:]) + closing

    @cached_property
    def _parsed(self) -> tuple[list[tuple[str, str]], str]:
        """Return each field with the words before it, and the words at the end."""
        fields, words = list[tuple[str, str]](), ""
        try:
            for literal, name, spec, conversion in Formatter().parse(self.template):
                words += literal
                if name is not None:
                    # no index, conversion or format: a template only inserts values
                    fields.append((words, "?" if spec or conversion else name))
                    words = ""
        except ValueError as problem:
            raise self._refused(f"{problem}; a brace that is meant as such is written twice") from None
        return fields, words

    def _refused(self, why: str) -> Refused:
        return Refused(reason=f"The template {self.template!r} can not be used: {why}.")


@dataclass(frozen=True)
class _Piece:
    """A stretch that is not cut any further: `mark` rates its start as a place for a cut, `size` is its tokens."""

    start: int
    end: int
    heading: str
    mark: int
    size: int


def chunk(document: IncomingDocument, blocks: Sequence[Block], recipe: Recipe, count: Count) -> list[ChunkDraft]:
    """Return the chunks of a document, in order; their contents joined are its text. A document without text has none.

    The text must be one that can be stored (`domain.text.clean`). `blocks` must cover it, each with a part of it, else
    `ValueError` is raised. `count` gives the tokens of each text as the space's model counts them, and takes nearly all of
    the time. Raises `Refused` if the recipe's template leaves no room for text.
    """
    if not document.text:
        return []
    ends = [0, *(block.end for block in blocks)]
    if ends[-1] != len(document.text) or any(begin >= end for begin, end in pairwise(ends)):
        raise ValueError(f"{document.uri}: its blocks do not cover its {len(document.text)} characters in order")
    return list(_numbered(document.text, _Chunker(document, blocks, recipe, count).parts(blocks)))


def chunk_whole(documents: Sequence[IncomingDocument], recipe: Recipe, count: Count) -> list[ChunkDraft | None]:
    """Return for each document the only chunk that `chunk` makes of it, or None where that needs its blocks.

    A short plain text is one section, so it is one chunk. Of many such texts, as the rows of a table are, the tokens are
    counted in one call, which takes a fifth of the time.
    """
    short = _shortened({one.title for one in documents}, recipe.tokens // HEAD_SHARE, count)
    far = MOST_CHARACTERS_A_TOKEN * recipe.tokens
    texts: dict[int, str] = {}
    for place, one in enumerate(documents):
        if one.text and one.format in ONE_SECTION and len(one.text) <= far:
            texts[place] = recipe.vector_text(short[one.title], "", one.text)
    found: list[ChunkDraft | None] = [None] * len(documents)
    # a vector text that is too long by its title alone is not counted by `chunk` either
    counted = [place for place in texts if len(texts[place]) <= far]
    for place, tokens in zip(counted, count([texts[place] for place in counted]), strict=True):
        if tokens <= recipe.tokens:
            text = documents[place].text
            (found[place],) = _numbered(text, [(0, len(text), "", texts[place], tokens)])
    return found


_Part = tuple[int, int, str, str, int]
"""Start, end, heading, vector text and its tokens."""


class _Chunker:
    """Cuts one document: sections first, and only what is too large for the model is cut further."""

    def __init__(self, document: IncomingDocument, blocks: Sequence[Block], recipe: Recipe, count: Count) -> None:
        self._text, self._recipe, self._count = document.text, recipe, count
        said = {document.title, *(block.heading for block in blocks)}
        self._short = _shortened(said, recipe.tokens // HEAD_SHARE, count)
        self._title = self._short[document.title]

    def parts(self, blocks: Sequence[Block]) -> Iterator[_Part]:
        """Yield sections: whole where they fit, in parts where they do not."""
        sections = list(_sections(blocks))
        whole = [self._vector_text(start, end, section[0].heading) for start, end, section in sections]
        for (start, end, section), text, tokens in zip(sections, whole, self._tokens(whole), strict=True):
            if tokens <= self._recipe.tokens:
                yield start, end, section[0].heading, text, tokens
            else:
                yield from self._in_parts(start, section)

    def _in_parts(self, start: int, blocks: Sequence[Block]) -> Iterator[_Part]:
        head = self._recipe.vector_text(self._title, self._short[blocks[0].heading], "x")
        room = self._recipe.tokens - self._count([head])[0]
        if room < LEAST_TEXT_TOKENS:
            raise Refused(
                reason=f"The template {self._recipe.template!r} leaves {room} of {self._recipe.tokens} tokens for the "
                "text: shorten it, or allow more tokens."
            )
        yield from self._fitting(list(self._pieces(start, blocks, room)), room)

    def _fitting(self, pieces: Sequence[_Piece], room: int) -> Iterator[_Part]:
        """Yield neighbours together up to `room`; fewer where a text has more tokens than the sum of its pieces."""
        ranges = gather([piece.size for piece in pieces], [piece.mark for piece in pieces], room)
        texts = [self._vector_text(pieces[lo].start, pieces[hi - 1].end, pieces[lo].heading) for lo, hi in ranges]
        for (lo, hi), text, tokens in zip(ranges, texts, self._count(texts), strict=True):
            over = tokens - self._recipe.tokens
            smaller = [] if over <= 0 else self._smaller(pieces[lo:hi])
            if len(smaller) > 1:
                fewer = min(room, sum(piece.size for piece in smaller)) - over
                yield from self._fitting(smaller, fewer)
            else:
                yield pieces[lo].start, pieces[hi - 1].end, pieces[lo].heading, text, tokens

    def _smaller(self, pieces: Sequence[_Piece]) -> Sequence[_Piece]:
        if len(pieces) > 1:
            return pieces
        text = self._text[pieces[0].start : pieces[0].end]
        return list(self._split(pieces[0], _bytes(text.strip()) // 2))

    def _pieces(self, start: int, blocks: Sequence[Block], room: int) -> Iterator[_Piece]:
        bounds = [start, *(block.end for block in blocks)]
        texts = [self._text[begin:end] for begin, end in pairwise(bounds)]
        for begin, block, text, size in zip(bounds, blocks, texts, self._tokens(texts), strict=False):
            piece = _Piece(begin, block.end, block.heading, _mark(block.cut, text), size)
            if size <= room:
                yield piece
            else:
                yield from self._split(piece, room // SPLIT_SHARE)

    def _split(self, piece: _Piece, most: int) -> Iterator[_Piece]:
        """Split a piece that is too large by itself into parts of at most `most` bytes: a token has at least one byte."""
        bounds = [piece.start, *self._split_points(piece, max(most, CHARACTER_BYTES)), piece.end]
        texts = [self._text[begin:end] for begin, end in pairwise(bounds)]
        for begin, end, text, size in zip(bounds, bounds[1:], texts, self._count(texts), strict=False):
            mark = piece.mark if begin == piece.start else _mark(self._cut(begin), text)
            yield _Piece(begin, end, piece.heading, mark, size)

    def _split_points(self, piece: _Piece, most: int) -> Iterator[int]:
        """Yield places to split a piece: between lines, sentences, clauses, words or, in the worst case, within a word."""
        from semchunk.semchunk import chunk as semchunk

        begin = end = piece.start
        while end < piece.end:
            end = min(begin + SPLIT_CHARACTERS, piece.end)
            found = semchunk(self._text[begin:end], most, _bytes, memoize=False, offsets=True)
            points = [begin + start for start, _ in cast(_Spans, found)[1][1:]]
            if not points and end < piece.end:
                points = [end]
            yield from points
            # the part after the last split may continue beyond the end
            begin = points[-1] if points else end

    def _cut(self, at: int) -> Cut:
        """Return how good a place within a block is: after a line, after a sentence, after both, or after neither."""
        before = self._text[max(0, at - 8) : at].rstrip(" \t")
        return Cut(before.endswith("\n") + before.rstrip(CLOSING).endswith(ENDS))

    def _vector_text(self, start: int, end: int, heading: str) -> str:
        return self._recipe.vector_text(self._title, self._short[heading], self._text[start:end])

    def _tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text; a text that is far too long is not counted, only marked as too long."""
        far = MOST_CHARACTERS_A_TOKEN * self._recipe.tokens
        counted = iter(self._count([text for text in texts if len(text) <= far]))
        return [next(counted) if len(text) <= far else maxsize for text in texts]


def _shortened(lines: Iterable[str], most: int, count: Count) -> dict[str, str]:
    """Shorten each title or heading to one line of at most `most` tokens."""
    short = {line: snippet(line, MOST_CHARACTERS_A_TOKEN * most) for line in lines}
    # a token has at least one byte
    left = [line for line in short if _bytes(short[line]) > most]
    while left:
        tokens = count([short[line] for line in left])
        left = [line for line, size in zip(left, tokens, strict=True) if size > most and len(short[line]) > 1]
        short |= {line: snippet(short[line], len(short[line]) * 3 // 4) for line in left}
    return short


def _sections(blocks: Sequence[Block]) -> Iterator[tuple[int, int, list[Block]]]:
    start, section = 0, list[Block]()
    for block in blocks:
        if section and block.cut is Cut.SECTION:
            yield start, section[-1].end, section
            start, section = section[-1].end, []
        section.append(block)
    yield start, section[-1].end, section


def _bytes(text: str) -> int:
    return len(text.encode())


def _mark(cut: Cut, text: str) -> int:
    """Return a rating, higher for a better place. Among equals a hash of the text decides: evenly spread and reproducible."""
    return int(cut) << 32 | crc32(text.strip().encode())


def gather(sizes: Sequence[int], marks: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Return ranges `(first, end)` of neighbours with at most `room` together, in order; a single one may have more.

    The boundary of the lowest mark is removed first, then the next, wherever both sides fit together. So whether a boundary
    stays depends on those nearby with lower marks, and on few others: a few chunks away an edit has no effect. No two
    neighbours are left that would fit together.
    """
    firsts, ends, sums = list(range(len(sizes))), list(range(1, len(sizes) + 1)), list(sizes)
    for at in sorted(range(1, len(sizes)), key=marks.__getitem__):
        first = firsts[at - 1]
        if sums[first] + sums[at] <= room:
            sums[first] += sums[at]
            ends[first] = ends[at]
            firsts[ends[at] - 1] = first
    ranges, first = list[tuple[int, int]](), 0
    while first < len(sizes):
        ranges.append((first, ends[first]))
        first = ends[first]
    return ranges


def _numbered(text: str, parts: Iterable[_Part]) -> Iterator[ChunkDraft]:
    line = 1
    for ordinal, (start, end, heading, vector_text, tokens) in enumerate(parts):
        content = text[start:end]
        breaks = content.count("\n")
        digest = sha256(vector_text.encode()).digest()
        yield ChunkDraft(
            ordinal, content, heading, vector_text, line, line + breaks - content.endswith("\n"), tokens, digest
        )
        line += breaks
