"""Documents of any source: what a source lists, what it reads, why it left something out; no chunking here."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Cut(IntEnum):
    """A rating of a boundary as a place for a cut. At SECTION the text is always cut, elsewhere only where it must be."""

    WORD = 0
    SENTENCE = 1
    LINE = 2
    PARAGRAPH = 3
    PART = 4
    SECTION = 5


@dataclass(frozen=True)
class Block:
    """A stretch of text that should not be cut: a paragraph, a list item, a statement.

    Blocks cover their text without gaps: each begins where the one before it ends, at `end` (exclusive, in characters).
    `heading` is its heading path (`Guide › Retrying`) or qualified name (`Task.cancel`), `cut` the boundary before it.
    """

    end: int
    heading: str
    cut: Cut


@dataclass(frozen=True)
class Media:
    """An image or a sound on disk: its type (`image/png`), its size in bytes and the SHA-256 of them."""

    path: str
    media_type: str
    size: int
    digest: bytes


@dataclass(frozen=True)
class IncomingDocument:
    """A text with its identity, from a source. `format` is its structure (`markdown`, `python`, `plain`, …).

    `stamp` is the source's own version mark: equal stamps promise equal text. A document with `media` has no text yet: its
    format is `image` or `audio`, and its text will be what a model says of the file. A row of an attached table has the
    values of its `key`, and those of the `fields` that its hits carry. `metadata` is what a caller says of it; without any,
    what was said before stays.
    """

    uri: str
    title: str
    text: str
    format: str
    stamp: str | None = None
    media: Media | None = None
    key: Sequence[object] | None = None
    fields: Mapping[str, object] | None = None
    metadata: Mapping[str, object] | None = None


@dataclass(frozen=True)
class SkippedDocument:
    """Something that was listed or named but has no document: `reason` is one of a few, `detail` says more."""

    uri: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class ListedDocument:
    """An entry of a listing. A source that has to read in order to list returns the document at once."""

    uri: str
    stamp: str | None = None
    document: IncomingDocument | None = None


ChangedIds = Mapping[str, Sequence[str | int]]
"""Changed ids, by table (`files` for a file source): `{"orders": [17, 23], "reviews": [4]}`."""


class SourceReader(Protocol):
    """Reads the documents of one dataset from its source. A listing is complete, or it raises."""

    @property
    def where(self) -> str:
        """Return the place for messages, without credentials."""
        ...

    @property
    def folders(self) -> Sequence[str]:
        """Return what the URIs of its folders begin with; a folder that became empty deserves a warning."""
        ...

    def owns(self, uri: str) -> bool:
        """Return whether a document with this URI comes from here: only such a document is ever deleted."""
        ...

    def exists(self, uri: str) -> bool:
        """Return whether the document may still exist; True where only a listing can tell."""
        ...

    def named(self, changed: ChangedIds) -> list[str]:
        """Return the URIs of changed ids, each once. Raises `Refused` for an unknown table or an id of a wrong type."""
        ...

    def listing(self, *, after: str | None = None) -> AsyncIterator[list[ListedDocument | SkippedDocument]]:
        """Yield everything after the URI `after`, in batches, in an order that does not change."""
        ...

    def read(self, listed: Sequence[ListedDocument]) -> AsyncIterator[list[IncomingDocument | SkippedDocument]]:
        """Yield the documents of one batch. A `SkippedDocument` with the reason `gone` no longer exists."""
        ...

    def uris(self) -> AsyncIterator[list[str]]:
        """Yield the URIs of everything. Raises rather than leave one out."""
        ...

    async def aclose(self) -> None:
        """Release connections and files; may be called twice."""
        ...
