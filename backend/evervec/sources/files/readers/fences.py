"""Puts a text into a code block of Markdown."""

import re
from typing import Final

_BACKTICKS: Final = re.compile(r"`{3,}")


def fence(source: str, language: str = "") -> str:
    """Return the text in a fence that is longer than any inside, so that it ends where the text does."""
    marker = "`" * (max(map(len, _BACKTICKS.findall(source)), default=2) + 1)
    return f"{marker}{language}\n{source}\n{marker}"
