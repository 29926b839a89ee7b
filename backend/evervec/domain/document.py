"""Documents, whatever they came from: what a source lists, what it reads, why it left something out; no chunking here."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Cut(IntEnum):
    """How good a place a boundary is for a cut. At SECTION the text is always cut, elsewhere only where it must be."""

    WORD = 0
    SENTENCE = 1
    LINE = 2
    PARAGRAPH = 3
    PART = 4
    SECTION = 5


@dataclass(frozen=True)
class Block:
    """A stretch of text that is better not cut: a paragraph, a list item, a statement.

    Blocks cover their text without gaps: each begins where the one before it ends, at `end` (exclusive, in characters).
    `heading` is its heading path (`Guide › Retrying`) or qualified name (`Task.cancel`), `cut` the boundary before it.
    """

    end: int
    heading: str
    cut: Cut


@dataclass(frozen=True)
class Media:
    """A picture or a sound on disk: what it is (`image/png`), its size in bytes and the SHA-256 of them."""

    path: str
    media_type: str
    size: int
    digest: bytes


@dataclass(frozen=True)
class IncomingDocument:
    """A text with its identity. `format` tells how it is structured (`markdown`, `python`, `plain`, …).

    `stamp` is the source's own sign of this version: equal stamps promise equal text. A document with `media` has no
    text yet: its format is `image` or `audio`, and its text will be what a model says of the file.
    """

    uri: str
    title: str
    text: str
    format: str
    stamp: str | None = None
    media: Media | None = None


@dataclass(frozen=True)
class SkippedDocument:
    """Something that was listed or named and has no document: `reason` is one of a few, `detail` says more."""

    uri: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class ListedDocument:
    """What a listing says of a document. A source that has to read in order to list hands the document over at once."""

    uri: str
    stamp: str | None = None
    document: IncomingDocument | None = None


ChangedIds = Mapping[str, Sequence[str | int]]
"""What changed, by table (`files` for a file source): `{"orders": [17, 23], "reviews": [4]}`."""


class SourceReader(Protocol):
    """Where the documents of one dataset come from. A listing is complete, or it raises."""

    @property
    def where(self) -> str:
        """The place, for messages; without credentials."""
        ...

    @property
    def folders(self) -> Sequence[str]:
        """What the uris of its folders begin with: of each it is odd that nothing is in it any more."""
        ...

    def owns(self, uri: str) -> bool:
        """Whether a document with this uri comes from here: only such a one is ever deleted."""
        ...

    def exists(self, uri: str) -> bool:
        """Whether the document may still be there; True where only a listing can tell."""
        ...

    def named(self, changed: ChangedIds) -> list[str]:
        """The uris of changed ids, each once. Raises `Refused` for an unknown table or an id of a wrong type."""
        ...

    def listing(self, *, after: str | None = None) -> AsyncIterator[list[ListedDocument | SkippedDocument]]:
        """Everything there is, in an order that stays, batch by batch, from behind the uri `after` on."""
        ...

    def read(self, listed: Sequence[ListedDocument]) -> AsyncIterator[list[IncomingDocument | SkippedDocument]]:
        """The documents of one batch. A `SkippedDocument` whose reason is `gone` says that there is nothing any more."""
        ...

    def uris(self) -> AsyncIterator[list[str]]:
        """The uris of everything there is, complete at its end. Raises rather than to leave out."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and files; may be called twice."""
        ...
