"""HTML as Markdown: headings, code and tables are kept; navigation, addresses of links and emphasis are left out."""

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
    """Return title (`<title>`, else the first `<h1>`), text, and the text's format: `markdown`.

    Any HTML is accepted, also invalid one. A page that nests too deep to be converted is `plain`: its text, line by
    line.
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
    """A converter that leaves out addresses and decoration: they are noise in a vector."""

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
        """Convert a tag as inherited, within bounds: in nested lists a line of two characters is indented to fifty."""
        text: str = super().process_tag(node, parent_tags)  # type: ignore[misc]  # the library's stub leaves it out
        if len(text) > self._most:
            raise _BeyondBoundsError
        return text

    def convert_a(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Return the text of a link; nothing for the permalink sign beside a heading."""
        return text if text.strip(_PERMALINKS + "#") else ""

    def convert_img(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Return the alternative text of an image."""
        return " ".join(str(el.get("alt") or "").split())

    def convert_video(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Return the text in place of a video."""
        return text

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Return a code block, with its language if the page tells it."""
        return "" if is_blank(text) else f"\n\n{fence(text.strip(_NEWLINES), _language(el))}\n\n"

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Return a list item.

        Each step of a numbered list is `1.`: an inserted one must not change all that follow.
        """
        if is_blank(text):
            return "\n"
        bullet = "1. " if el.parent is not None and el.parent.name == "ol" else "- "
        lines = text.strip().split("\n")
        return bullet + "\n".join([lines[0], *(line and " " * len(bullet) + line for line in lines[1:])]) + "\n"


def _language(pre: Tag) -> str:
    """Return the language of a code block.

    Most generators write it as `class="language-python"` or `highlight-python`.
    """
    near = [pre, pre.find("code"), *islice(pre.parents, 2)]
    for element in near:
        for name in element.get_attribute_list("class") if isinstance(element, Tag) else []:
            kind, _, language = (name or "").partition("-")
            if kind in ("language", "lang", "highlight", "brush") and language.isalnum():
                return language
    return ""
