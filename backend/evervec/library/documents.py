"""Documents that a caller of the library makes: from a text, or from a file. Exported as `evervec.Document`."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Self

from evervec.domain.documents import document
from evervec.errors import UnreadablePathError

MOST_DOCUMENT_BYTES = 20_000_000


@dataclass(frozen=True)
class LibraryDocument(document.IncomingDocument):
    """A text with its identity, `uri`: a document with the same uri replaces it.

    `format` is the structure of the text (`markdown`, `python`, `plain`, …). `metadata` are names and JSON values of your own,
    which hits carry and conditions compare (`where='metadata.lang = "en"'`).
    """

    @classmethod
    def from_text(
        cls,
        uri: str,
        text: str,
        *,
        title: str = "",
        format: str = "plain",  # noqa: A002  # a document's word
        metadata: Mapping[str, object] | None = None,
    ) -> Self:
        """Make a document from a text."""
        from evervec.domain.text import clean

        return cls(uri, clean(title), clean(text), format, metadata=metadata)

    @classmethod
    def from_path(
        cls,
        path: str | PathLike[str],
        *,
        most_bytes: int = MOST_DOCUMENT_BYTES,
        metadata: Mapping[str, object] | None = None,
    ) -> Self:
        """Read a file: text, Markdown, HTML, PDF, a notebook, source code, a picture or a sound. Blocking.

        A picture or a sound has `media` and no text; it is read again when it is sent to be described. Raises
        `UnreadablePathError` for a file that is missing, unreadable, binary, damaged, encrypted, too large or of another
        format than its name says.
        """
        from evervec.sources.files.media import MOST_MEDIA_BYTES, is_media, media_document
        from evervec.sources.files.readers.document import read_file

        file = Path(fspath(path)).absolute()
        if is_media(file):
            found = media_document(file, most_bytes=min(most_bytes, MOST_MEDIA_BYTES))
        else:
            found = read_file(file, most_bytes=most_bytes)
        if isinstance(found, document.SkippedDocument):
            raise UnreadablePathError(
                path=str(path), reason=f"{found.reason}{f' ({found.detail})' if found.detail else ''}"
            )
        return cls(found.uri, found.title, found.text, found.format, found.stamp, found.media, metadata=metadata)
