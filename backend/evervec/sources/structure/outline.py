"""The entry to this package: picks the module of a format, and falls back to plain text when a parser fails."""

from collections.abc import Callable, Iterable
from typing import Final

from evervec import log
from evervec.domain.documents.document import Block
from evervec.domain.text import snippet
from evervec.errors import MissingExtraError
from evervec.extras import extra
from evervec.sources.structure import docstrings, grammars, markdown, plain_text, rst
from evervec.sources.structure.block_starts import BlockStart, blocks_between
from evervec.sources.structure.headings import LONGEST_HEADING

_MARKS: Final[dict[str, Callable[[str], Iterable[BlockStart]]]] = {
    "markdown": markdown.block_starts,
    "rst": rst.block_starts,
}
_TITLES: Final[dict[str, Callable[[str], str]]] = {
    "markdown": markdown.title,
    "rst": rst.title,
    "python": docstrings.title,
}


def blocks(text: str, format: str) -> list[Block]:  # noqa: A002  # the name of the field in a document's record
    """Return the blocks of a text. They cover it; an empty text has none.

    A format that is unknown, and a text that its parser can not take, are treated as `plain`. Raises
    `MissingExtraError` for source code when its parsers are not installed, and nothing else.
    """
    try:
        return blocks_between(text, _marks(text, format))
    except MissingExtraError:
        raise
    except Exception as problem:  # a defect of a parser must not prevent that a text is found
        log.get("sources").warning("structure not read", format=format, characters=len(text), error=repr(problem))
        return blocks_between(text, plain_text.block_starts(text))


def title(text: str, format: str) -> str:  # noqa: A002
    """Return a text's title on one line, or "": its first heading, or the first line of a Python module's docstring."""
    if format not in _TITLES:
        return ""
    try:
        return snippet(_TITLES[format](text), LONGEST_HEADING)
    except Exception as problem:
        log.get("sources").warning("title not read", format=format, characters=len(text), error=repr(problem))
        return ""


def _marks(text: str, format: str) -> Iterable[BlockStart]:  # noqa: A002
    if format in grammars.GRAMMARS:
        with extra("code", "Reading source code"):
            from evervec.sources.structure import definitions
        return definitions.block_starts(text, format)
    return _MARKS.get(format, plain_text.block_starts)(text)
