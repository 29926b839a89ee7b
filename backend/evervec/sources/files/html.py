"""HTML as Markdown: headings, code and tables kept; scripts, navigation, addresses of links and emphasis left out."""

from typing import Any, Final

from bs4 import BeautifulSoup, NavigableString, Tag
from markdownify import ATX, MarkdownConverter

from evervec.sources.files.html_raw import without_raw

MOST_DEPTH: Final = 100
"""Elements inside each other; real pages stay below 50, and the converter calls itself three times for each."""

_DROPPED: Final = "nav noscript svg template button iframe object canvas".split()
_PERMALINKS: Final = "¶§#🔗⚓∞\ufe0e\ufe0f "
_MOST_GROWTH: Final = 4


def html_markdown(html: str) -> tuple[str, str, str]:
    """Title (`<title>`, else the first `<h1>`), text, and the text's format: `markdown`, for any HTML however broken.

    What nests too deep to be converted is `plain`: what it says, line by line.
    """
    soup = BeautifulSoup(without_raw(html), "html.parser")
    _drop(soup, *_DROPPED)
    title = _title(soup)
    _drop(soup, "head", "title")
    try:
        if _deep(soup):
            raise _BeyondBoundsError
        return title, _Converter(len(html) * _MOST_GROWTH).convert_soup(soup), "markdown"
    except (_BeyondBoundsError, ValueError):  # ValueError: a number of a thousand digits in an attribute
        return title, soup.get_text("\n", strip=True), "plain"


def _drop(soup: BeautifulSoup, *names: str) -> None:
    for element in soup(names):
        element.decompose()


def _title(soup: BeautifulSoup) -> str:
    named = soup.find("title") or soup.find("h1")
    return " ".join(named.get_text().split()).rstrip(_PERMALINKS) if named else ""


def _deep(soup: BeautifulSoup) -> bool:
    """Whether elements nest too deep; found without climbing: depth is one more than the parent's."""
    depth = {id(soup): 0}
    for element in soup.descendants:
        if isinstance(element, Tag):
            depth[id(element)] = depth[id(element.parent)] + 1
    return max(depth.values()) > MOST_DEPTH


class _BeyondBoundsError(Exception):
    """The page nests too deep, or its Markdown would be many times as long."""


class _Converter(MarkdownConverter):
    """What is only for the eye, and addresses, are noise in a vector: they are left out."""

    def __init__(self, most: int) -> None:
        super().__init__(
            heading_style=ATX,
            bullets="-",
            strong_em_symbol="",
            escape_asterisks=False,
            escape_underscores=False,
            table_infer_header=True,
            code_language_callback=_language,
        )
        self._most = most + 1000

    def process_tag(self, node: Tag, parent_tags: set[str] | None = None) -> str:
        """As inherited, within bounds: indented lists in lists can make a hundred characters of two."""
        text: str = super().process_tag(node, parent_tags)
        if len(text) > self._most:
            raise _BeyondBoundsError
        return text

    def convert_a(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """The text of a link; nothing for the sign beside a heading that links to it."""
        return text if text.strip(_PERMALINKS) else ""

    def convert_img(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """What the picture is said to show."""
        return " ".join(str(el.get("alt") or "").split())

    def convert_video(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """What is said in its place."""
        return text

    def convert_br(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """A line break, as it is seen."""
        return " " if "_inline" in parent_tags else "\n"

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """An item. Each step of a numbered list is `1.`: one put in between must not change all that follow."""
        text = text.strip()
        if not text:
            return "\n"
        bullet = "1. " if el.parent is not None and el.parent.name == "ol" else "- "
        indent = "\n" + " " * len(bullet)
        return bullet + text.replace("\n", indent).replace(indent + "\n", "\n\n") + "\n"


def _language(pre: Tag) -> str | None:
    """The language of a code block as most generators write it: `class="language-python"` or `highlight-python`."""
    around: list[Any] = [pre, pre.code, *pre.parents]
    for element in around[:4]:
        for name in (element.get("class") or []) if isinstance(element, Tag) else []:
            kind, _, language = name.partition("-")
            if kind in ("language", "lang", "highlight", "brush") and language.isalnum():
                return str(language)
    return None
