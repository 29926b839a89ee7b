"""The tree of an HTML page as a browser builds it: omitted end tags are added; nothing is converted here."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from bs4 import BeautifulSoup, Tag

from evervec.sources.files.readers.html_strip import strip_raw_parts

_DROPPED: Final = frozenset(["title", "nav", "noscript", "svg", "template", "button", "iframe", "object", "canvas"])

_BLOCK_NAMES: Final = (
    "address article aside blockquote details div dl fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr main nav "
    "ol p pre section table ul"
)
_BLOCKS: Final = frozenset(_BLOCK_NAMES.split())
_TERMS: Final = frozenset({"dt", "dd"})
_CELLS: Final = frozenset({"td", "th"})
_PARTS: Final = frozenset({"thead", "tbody", "tfoot"})

# https://html.spec.whatwg.org/multipage/syntax.html#optional-tags: a tag ends these, if open, up to what it is part of
_ENDS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    **dict.fromkeys(_BLOCKS, (frozenset({"p"}), _BLOCKS | _TERMS | _CELLS | {"li"})),
    **dict.fromkeys(_TERMS, (_TERMS, frozenset({"dl"}))),
    **dict.fromkeys(_CELLS, (_CELLS, frozenset({"tr", "table"}))),
    **dict.fromkeys(_PARTS, (_PARTS, frozenset({"table"}))),
    "tr": (frozenset({"tr"}), frozenset({"table"})),
    "li": (frozenset({"li"}), frozenset({"ul", "ol", "menu"})),
}
_NEAR: Final = 12


class HtmlTree(BeautifulSoup):
    """The tree of a page without navigation, drawings and other things for the eye. Any markup makes one.

    `deep` is how many elements were open at once, `title_text` the text of `<title>`, else of the first `<h1>`.
    """

    deep: int
    title_text: str

    def __init__(self, html: str) -> None:
        super().__init__(strip_raw_parts(html), "html.parser")
        titles = [" ".join(self._named[name].get_text().split()) for name in ("title", "h1") if name in self._named]
        self.title_text = next(filter(None, titles), "")
        for tag in self._dropped:
            tag.decompose()

    def reset(self) -> None:
        """Reset as inherited, before anything is parsed."""
        super().reset()
        self.deep = 0
        self._dropped: list[Tag] = []
        self._named: dict[str, Tag] = {}

    def handle_starttag(self, name: str, *args: Any, **more: Any) -> Tag | None:
        """Handle a start tag as inherited, after ending the elements that it ends."""
        if name in _ENDS:
            self._end(*_ENDS[name])
        tag = super().handle_starttag(name, *args, **more)
        self.deep = max(self.deep, len(self.tagStack))
        if tag is not None and name in _DROPPED:
            self._dropped.append(tag)
        if tag is not None and name in ("title", "h1") and not self.open_tag_counter.get("svg"):
            self._named.setdefault(name, tag)
        return tag

    def _end(self, ended: frozenset[str], inside: frozenset[str]) -> None:
        """End the nearest open element of these. Few elements are checked, so that no nesting makes it slow."""
        for tag in islice(reversed(self.tagStack), _NEAR):
            if tag.name in ended:
                return self.handle_endtag(tag.name)
            if tag.name in inside:
                return None
        return None
