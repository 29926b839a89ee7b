"""Jupyter notebooks as Markdown: their cells in order, code in fences; outputs, which a run changes, are left out."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from evervec.sources.files.readers.fences import fence
from evervec.sources.files.readers.unreadable import Unreadable

_LANGUAGE: Final = re.compile(r"[\w+#.-]+")


def notebook_markdown(text: str) -> str:
    """Return the Markdown of a notebook of nbformat 3 or 4 (https://nbformat.readthedocs.io); empty if its cells are.

    Raises `Unreadable`: `torn`, for what is no JSON or no notebook.
    """
    notebook = _parsed(text)
    language = _language(notebook)
    parts = (_markdown(number, cell, language) for number, cell in enumerate(_cells(notebook), 1))
    return "\n\n".join(part for part in parts if part)


def _parsed(text: str) -> Mapping[str, object]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _torn(f"it is not JSON: line {error.lineno:,}, column {error.colno:,}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise _torn(f"its JSON is beyond bounds: {error}") from None
    if not isinstance(value, dict):
        raise _torn(f"it is JSON, but no notebook: a {type(value).__name__} where an object belongs")
    return value


def _torn(detail: str) -> Unreadable:
    return Unreadable("torn", detail)


def _cells(notebook: Mapping[str, object]) -> Iterator[object]:
    """Yield the cells: in the notebook itself, or in the worksheets that nbformat 3 had."""
    sheets = notebook.get("worksheets", [notebook])
    for sheet in sheets if isinstance(sheets, list) else [None]:
        cells = sheet.get("cells") if isinstance(sheet, dict) else None
        if not isinstance(cells, list):
            raise _torn("it is JSON, but no notebook: it has no list of cells")
        yield from cells


def _language(notebook: Mapping[str, object]) -> str:
    """Return the kernel's language, in one word; empty if the notebook does not tell it."""
    metadata = _object(notebook.get("metadata"))
    language = _object(metadata.get("language_info")).get("name") or _object(metadata.get("kernelspec")).get("language")
    return _word(language)


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return value.lower() if isinstance(value, str) and _LANGUAGE.fullmatch(value) else ""


def _markdown(number: int, cell: object, language: str) -> str:
    fields = _object(cell)
    source = _source(number, fields).strip("\n")
    if not source.strip():
        return ""
    match fields.get("cell_type"):
        case "markdown":
            return source
        case "heading":
            level = fields.get("level")
            return f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {' '.join(source.split())}"
        case "code":
            return fence(source, language or _word(fields.get("language")))
        case _:
            return fence(source)


def _source(number: int, cell: Mapping[str, object]) -> str:
    """Return the text of a cell, a string or a list of lines; nbformat 3 has that of code under `input`."""
    source = cell.get("source", cell.get("input"))
    lines = [source] if isinstance(source, str) else source
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _torn(f"its cell {number:,} has no source")
    return "".join(lines)
