"""Turns one file into one document, or tells why not; each format is read by the module of its name."""

from pathlib import Path, PurePath
from typing import Final

from evervec.domain.documents.document import IncomingDocument, SkippedDocument
from evervec.domain.text import clean, snippet
from evervec.extras import extra
from evervec.sources.files import formats
from evervec.sources.files.file_uris import uri_of
from evervec.sources.files.readers.file_bytes import LONGEST_TITLE, read_content, skipped, unreadable_for
from evervec.sources.files.readers.notebook import notebook_markdown
from evervec.sources.files.readers.unreadable import Unreadable
from evervec.sources.structure import title as title_of

with extra("files", "Reading files"):
    from evervec.sources.files.readers.decoding import decode
    from evervec.sources.files.readers.html import html_markdown
    from evervec.sources.files.readers.pdf import pdf_text

_MARKDOWN: Final = "markdown"
_TEXT_FORMATS: Final = {formats.HTML: _MARKDOWN, formats.NOTEBOOK: _MARKDOWN, formats.PDF: formats.PLAIN}


def read_file(path: Path, *, most_bytes: int) -> IncomingDocument | SkippedDocument:
    """Return the document of a file, without a stamp. Blocking; at most `most_bytes` + 1 bytes are read.

    No content of a file raises. The reasons of a `SkippedDocument`: `gone`, `unreadable`, `not a file`, `too large`,
    `binary`, `not text`, `torn`, `encrypted`, `no text`.
    """
    uri = uri_of(path)
    try:
        return read_bytes(read_content(path, most_bytes), path.name, uri)
    except Unreadable as problem:
        return skipped(uri, problem)
    except OSError as error:
        return skipped(uri, unreadable_for(error))


def read_bytes(data: bytes, name: str, uri: str) -> IncomingDocument | SkippedDocument:
    """Return the document of a file of this name and content; its title comes from the content, never from the name.

    A file that is moved or renamed is embedded with the same words as before.
    """
    try:
        return _document(data, formats.format_of(PurePath(name)), uri)
    except Unreadable as problem:
        return skipped(uri, problem)


def _document(data: bytes, format_: str | None, uri: str) -> IncomingDocument:
    title, text, kind = _read(data, format_)
    text = clean(text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text)
    return IncomingDocument(uri, snippet(clean(title), LONGEST_TITLE) or title_of(text, kind), text, kind)


def _read(data: bytes, format_: str | None) -> tuple[str, str, str]:
    """Return the title as far as the file itself has one, the text, and the text's format."""
    match format_:
        case _ if not data:
            return "", "", _TEXT_FORMATS.get(format_, format_) if format_ else formats.PLAIN
        case formats.PDF:
            return *pdf_text(data), formats.PLAIN
        case formats.HTML:
            return html_markdown(decode(data, formats.HTML))
        case formats.NOTEBOOK:
            return "", notebook_markdown(decode(data)), _MARKDOWN
        case None:
            text = decode(data)
            return "", text, formats.format_by_first_line(text)
        case _:
            return "", decode(data, format_), format_
