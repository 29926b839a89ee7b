"""Documents that a caller of the library makes: from a text, or from a file. Exported as `evervec.Document`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any, Self

from evervec.domain.documents import document
from evervec.errors import Refused, UnreadablePathError

MOST_DOCUMENT_BYTES = 20_000_000


@dataclass(frozen=True, init=False)
class LibraryDocument(document.IncomingDocument):
    """A text with its identity, `uri`: a document with the same uri replaces it. `Document("notes.md")` reads a file.

    `format` is the structure of the text (`markdown`, `python`, `plain`, …). `metadata` are names and JSON values of your own,
    which hits carry and conditions compare (`where='metadata.lang = "en"'`).
    """

    def __init__(
        self,
        file: str | PathLike[str] | IO[Any] | None = None,
        /,
        *,
        metadata: Mapping[str, object] | None = None,
        **parts: Any,
    ) -> None:
        """Read a file, given by its path or open, as `from_path` does; or take the parts of a document by their names."""
        if file is not None:
            made = self.from_path(file, metadata=metadata) if isinstance(file, str | PathLike) else _of_open_file(file)
            parts = {one.name: getattr(made, one.name) for one in fields(made) if one.name != "metadata"} | parts
        super().__init__(metadata=metadata, **parts)

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

        return cls(uri=uri, title=clean(title), text=clean(text), format=format, metadata=metadata)

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
        made = _readable(found, str(path))
        parts = {one.name: getattr(made, one.name) for one in fields(made) if one.name != "metadata"}
        return cls(metadata=metadata, **parts)


def _of_open_file(file: IO[Any]) -> document.IncomingDocument:
    """Read an open file from where it stands. Its name is its identity, and says its format."""
    from evervec.sources.files.file_uris import uri_of
    from evervec.sources.files.media import is_media
    from evervec.sources.files.readers.document import read_bytes

    name = getattr(file, "name", None)
    if not isinstance(name, str):
        raise Refused(reason=f"{file!r:.100} has no name to be known by: use Document.from_text(uri, text).")
    path = Path(name).absolute()
    if is_media(path):
        return LibraryDocument.from_path(path)
    data = file.read(MOST_DOCUMENT_BYTES + 1)
    if len(data) > MOST_DOCUMENT_BYTES:
        raise UnreadablePathError(path=name, reason=f"too large (more than {MOST_DOCUMENT_BYTES:,} bytes)")
    return _readable(read_bytes(data.encode() if isinstance(data, str) else data, path.name, uri_of(path)), name)


def _readable(found: document.IncomingDocument | document.SkippedDocument, path: str) -> document.IncomingDocument:
    """Return a document that was read. Raises `UnreadablePathError` for one that was left out, with the reason."""
    if isinstance(found, document.SkippedDocument):
        raise UnreadablePathError(path=path, reason=f"{found.reason}{f' ({found.detail})' if found.detail else ''}")
    return found
