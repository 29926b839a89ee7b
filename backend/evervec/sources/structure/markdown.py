"""Markdown (CommonMark with tables): front matter, headings and the blocks between them, by markdown-it."""

import re
from collections.abc import Iterator
from typing import Final

import yaml
from markdown_it import MarkdownIt

from evervec.domain.documents.document import Cut
from evervec.sources.structure import headings
from evervec.sources.structure.block_starts import LINE, PARAGRAPH, PART, SECTION, BlockStart
from evervec.sources.structure.headings import LONGEST_HEADING, Heading, OutlinePart, Passage
from evervec.sources.structure.plain_text import follows_blank

MOST_MARKDOWN_LINES = 100_000
"""A file with more lines is not a document, and markdown-it takes up to 30 µs for each."""

_BLOCKS: Final = MarkdownIt("commonmark").enable("table").disable("inline")
_INLINE: Final = MarkdownIt("commonmark")
_FRONT: Final = re.compile(
    r"\ufeff?---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)(?:[ \t]*\r?\n)*", re.DOTALL | re.MULTILINE
)
_FRONT_TITLE: Final = re.compile(r"^title[ \t]*:.*(?:\n[ \t]+.*)*", re.MULTILINE)
_NEWLINE: Final = re.compile(r"\r\n?|\n")
_MARKED: Final = re.compile(r"[^\w\s,.()?:-]")
_ATTRIBUTES: Final = re.compile(r"\s*\{[:#.][^{}]*\}$")


def block_starts(text: str) -> Iterator[BlockStart]:
    """Yield the front matter, then a section for each heading. Raises ValueError for a file with too many lines."""
    front = _FRONT.match(text)
    begin = front.end() if front else 0
    if front:
        yield 0, "", SECTION
        yield begin, "", PART
    parts = list(_parts(text, begin))
    yield from headings.block_starts(text, parts, _front_title(front) or headings.first_title(parts))


def title(text: str) -> str:
    """Return the front matter's title, else the first heading if it is of level 1, without markup."""
    front = _FRONT.match(text)
    return _front_title(front) or headings.first_title(_parts(headings.top(text), front.end() if front else 0))


def _front_title(front: re.Match[str] | None) -> str:
    found = _FRONT_TITLE.search(front[1]) if front else None
    if not found:
        return ""
    try:
        value = yaml.safe_load(found[0][: 4 * LONGEST_HEADING])["title"]
    except (yaml.YAMLError, ValueError, RecursionError):
        return found[0].partition(":")[2].strip()
    return " ".join(str(value).split()) if value is not None else ""


def _parts(text: str, begin: int) -> Iterator[OutlinePart]:
    starts = [begin, *(found.end() for found in _NEWLINE.finditer(text, begin))]
    if len(starts) > MOST_MARKDOWN_LINES:
        raise ValueError(f"{len(starts)} lines of Markdown, {MOST_MARKDOWN_LINES} at most")
    tokens = _BLOCKS.parse(text[begin:])
    for at, token in enumerate(tokens):
        if (
            token.map is None
            or token.nesting < 0
            or token.level > 1
            or (token.level == 1) != (token.type == "list_item_open")
        ):
            continue
        start, end = starts[token.map[0]], starts[token.map[1]] if token.map[1] < len(starts) else len(text)
        if token.type == "heading_open":
            yield Heading(start, int(token.tag[1:]), _text(tokens[at + 1].content))
        elif not token.type.endswith("list_open"):
            yield Passage(start, end, _cut(text, start))


def _cut(text: str, start: int) -> Cut:
    return PARAGRAPH if follows_blank(text, start) else LINE


def _text(content: str) -> str:
    """Return a heading without its markup and without `{#anchor}`."""
    content = _ATTRIBUTES.sub("", content[: 4 * LONGEST_HEADING])
    if _MARKED.search(content):
        inline = _INLINE.parseInline(content)[0].children or []
        content = "".join(
            " " if token.type == "softbreak" else token.content for token in inline if token.type != "html_inline"
        )
    return " ".join(content.split())
