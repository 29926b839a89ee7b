"""Reads one file into a document (to be replaced by the whole reader in a moment)."""

from pathlib import Path

from evervec.domain.document import Document, Skipped
from evervec.domain.text import clean
from evervec.sources.files.uris import uri_of
from evervec.sources.structure import title


def read_file(path: Path, *, most_bytes: int) -> Document | Skipped:
    """Text files alone."""
    text = clean(path.read_bytes().decode(errors="replace"))
    format_ = {".py": "python", ".md": "markdown", ".rst": "rst"}.get(path.suffix, "plain")
    return Document(uri_of(path), title(text, format_), text, format_)
