"""The text of a PDF, page by page, within bounds of time and size; images are ignored, nothing is executed."""

import io
import logging
import re
from collections.abc import Iterator
from time import monotonic
from typing import Final

from pypdf import PasswordType, PdfReader, apply_configuration
from pypdf.errors import FileNotDecryptedError, LimitReachedError

from evervec.domain.text import is_blank
from evervec.sources.files.readers.unreadable import Unreadable

MOST_CHARACTERS: Final = 5_000_000
MOST_SECONDS: Final = 60.0

PAGE_BREAK: Final = "\n\f\n"

# No page of text needs more; with these limits a hostile file costs a second, not minutes.
_MOST_INFLATED: Final = 20_000_000
_MOST_OPERANDS: Final = 1_000_000

_JUNK_TITLE: Final = re.compile(
    r"untitled.*|microsoft \w+ - .*|document\d*|(slide|power ?point presentation|title|dvi file|no title)\s*\d*"
    r"|\S*\.(docx?|pptx?|xlsx?|dvi|tex|indd|qxd|pdf|rtf|odt|html?|ps|eps)",
    re.IGNORECASE,
)

# pypdf logs each defect that it could repair; the others are raised.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def pdf_text(data: bytes, *, seconds: float = MOST_SECONDS) -> tuple[str, str]:
    """Return title (from its metadata, else empty) and text; a form feed on a line of its own separates pages.

    Raises `Unreadable`: `encrypted`, `torn`, `no text`, `too large`.
    """
    if b"%PDF-" not in data[:1024]:
        raise Unreadable("torn", f"it is not a PDF: it begins with {data[:8]!r}")
    try:
        limits = apply_configuration(
            zlib_maximum_output_length=_MOST_INFLATED,
            lzw_maximum_output_length=_MOST_INFLATED,
            run_length_maximum_output_length=_MOST_INFLATED,
            array_based_stream_maximum_output_length=_MOST_INFLATED,
            stream_parsing_work_maximum_count=_MOST_OPERANDS,
        )
        with limits:
            return _read(data, monotonic() + seconds)
    except Unreadable:
        raise
    except FileNotDecryptedError:
        raise Unreadable("encrypted", "it opens only with a password") from None
    except LimitReachedError as error:
        raise Unreadable("too large", f"a part of it is out of bounds: {error}") from error
    except Exception as error:  # a broken file may raise anything, by the library's own documentation
        raise Unreadable("torn", f"{type(error).__name__}: {error}") from error


def _read(data: bytes, deadline: float) -> tuple[str, str]:
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED:
        raise FileNotDecryptedError
    pages = list(_pages(reader, deadline))
    text = PAGE_BREAK.join(pages)
    if all(map(is_blank, pages)):
        raise Unreadable("no text", f"{len(pages):,} pages, none with text: it may be scanned")
    return _title(reader), text


def _pages(reader: PdfReader, deadline: float) -> Iterator[str]:
    number = size = 0

    def watch(*_: object) -> None:
        if monotonic() > deadline:
            raise Unreadable("too large", f"it took too long: {number:,} pages were read")

    for number, page in enumerate(reader.pages):  # noqa: B007  # `watch` reports it
        watch()
        # `watch` is called for every operand, because a hostile page may last for hours
        text = page.extract_text(visitor_operand_before=watch).rstrip()
        size += len(text)
        if size > MOST_CHARACTERS:
            raise Unreadable("too large", f"it has more than {MOST_CHARACTERS:,} characters of text")
        yield text


def _title(reader: PdfReader) -> str:
    """Return the title that its author gave it, not a program's default."""
    metadata = reader.metadata
    title = " ".join((metadata.title or "").split()) if metadata else ""
    return "" if _JUNK_TITLE.fullmatch(title) else title
