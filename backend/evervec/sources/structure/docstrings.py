"""Finds the docstring of a Python module without parsing the module; `definitions` finds those of its definitions."""

import re
from typing import Final

_MODULE: Final = re.compile(
    r"""\ufeff?(?>(?:[^\S\n]*(?:\#[^\n]*)?\n)*)              # blank lines and comments
        [rRuU]?(?P<quote>\"{3}|'{3}|"|')\s*(?P<line>[^\n]*)""",
    re.VERBOSE,
)


def title(text: str) -> str:
    """Return the first line of a Python module's docstring, "" without one."""
    found = _MODULE.match(text)
    if not found:
        return ""
    line, quote = found["line"], found["quote"]
    first, closing, _ = line.partition(quote)
    return first.strip() if closing or len(quote) > 1 else ""
