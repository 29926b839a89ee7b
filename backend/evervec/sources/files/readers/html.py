"""HTML as Markdown: headings, code and tables kept; navigation, addresses of links and emphasis left out."""

from itertools import islice
from typing import Final

from bs4 import Tag
from markdownify import ATX, MarkdownConverter

from evervec.domain.text import is_blank
from evervec.sources.files.readers.fences import fence
from evervec.sources.files.readers.html_tree import HtmlTree

MOST_DEPTH: Final = 100
"""Elements inside each other; real pages stay below 50, and the converter calls itself three times for each."""

_MOST_GROWTH: Final = 4
_LEAST_BOUND: Final = 1000
_PERMALINKS: Final = "¶§🔗⚓∞\ufe0e\ufe0f "
_NEWLINES: Final = "\r\n"


def html_markdown(html: str) -> tuple[str, str, str]:
    """Title (`<title>`, else the first `<h1>`), text, and the text's format: `markdown`, for any HTML however broken.

    What nests too deep to be converted is `plain`: what it says, line by line.
    """
    page = HtmlTree(html)
    title = page.title_text.rstrip(_PERMALINKS)
    try:
        if page.deep > MOST_DEPTH:
            raise _BeyondBoundsError
        return title, _Converter(len(html) * _MOST_GROWTH + _LEAST_BOUND).convert_soup(page), "markdown"
    except (_BeyondBoundsError, ValueError):  # ValueError: a number of a thousand digits in a tag
        return title, page.get_text("\n", strip=True), "plain"


class _BeyondBoundsError(Exception):
    """The page nests too deep, or its Markdown would be many times as long."""


class _Converter(MarkdownConverter):
    """What is only for the eye, and addresses, are noise in a vector: they are left out."""

    def __init__(self, most_characters: int) -> None:
        super().__init__(
            heading_style=ATX,
            strong_em_symbol="",
            escape_asterisks=False,
            escape_underscores=False,
            table_infer_header=True,
        )
        self._most = most_characters

    def process_tag(self, node: Tag, parent_tags: set[str] | None = None) -> str:
        """As inherited, within bounds: lists in lists are indented, and a line of two characters becomes one of fifty."""
        text: str = super().process_tag(node, parent_tags)  # type: ignore[misc]  # the library's stub leaves it out
        if len(text) > self._most:
            raise _BeyondBoundsError
        return text

    def convert_a(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """The text of a link; nothing for the sign beside a heading that links to it."""
        return text if text.strip(_PERMALINKS + "#") else ""

    def convert_img(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """What the picture is said to show."""
        return " ".join(str(el.get("alt") or "").split())

    def convert_video(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """What is said in its place."""
        return text

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """A code block, with its language if the page tells it."""
        return "" if is_blank(text) else f"\n\n{fence(text.strip(_NEWLINES), _language(el))}\n\n"

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """An item. Each step of a numbered list is `1.`: one put in between must not change all that follow."""
        if is_blank(text):
            return "\n"
        bullet = "1. " if el.parent is not None and el.parent.name == "ol" else "- "
        lines = text.strip().split("\n")
        return bullet + "\n".join([lines[0], *(line and " " * len(bullet) + line for line in lines[1:])]) + "\n"


def _language(pre: Tag) -> str:
    """The language of a code block, as most generators write it: `class="language-python"`, `highlight-python`."""
    near = [pre, pre.find("code"), *islice(pre.parents, 2)]
    for element in near:
        for name in element.get_attribute_list("class") if isinstance(element, Tag) else []:
            kind, _, language = (name or "").partition("-")
            if kind in ("language", "lang", "highlight", "brush") and language.isalnum():
                return language
    return ""
