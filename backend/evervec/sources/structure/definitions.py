"""Source code: a section for each definition, and the starts of the statements inside."""

from collections.abc import Iterator
from typing import Final

from tree_sitter import Node

from evervec.domain.documents.document import Cut
from evervec.sources.structure import code_positions
from evervec.sources.structure.block_starts import (
    LARGE_TEXT,
    LINE,
    PARAGRAPH,
    PART,
    SECTION,
    SENTENCE,
    WORD,
    BlockStart,
)
from evervec.sources.structure.definition_names import body, definition_of, qualified_name
from evervec.sources.structure.grammars import ATTACHED_ABOVE, GRAMMARS, Grammar
from evervec.sources.structure.plain_text import block_starts_within

SMALL_BODY: Final = 400
"""Bytes up to which a body's statements are not marked: it fits into a chunk."""

LONG_DOCSTRING: Final = 1_500
_CUTS: Final = ((PARAGRAPH, LINE), (LINE, SENTENCE), (SENTENCE, WORD))
_LISTS: Final = ("block", "body", "list", "statements", "compound_statement")


def block_starts(text: str, language: str) -> Iterator[BlockStart]:
    """Yield a section for each definition, headed by its qualified name. Raises ValueError for what is not code."""
    data = text.encode("utf-8", "replace")
    walk = _Walk(data, GRAMMARS[language], language == "python")
    offsets = [*walk.marks, *(at for start, end, _, _ in walk.solid for at in (start, end))]
    place = dict(zip(offsets, code_positions.character_offsets(data, offsets), strict=True))
    for start, heading, cut in walk.sections():
        yield place[start], heading, cut
    for start, end, heading, after_blank in walk.solid:
        yield from block_starts_within(text, place[start], place[end], heading, after_blank)


class _Walk:
    """One walk through a tree, without recursion.

    `block_starts` are by byte, and `solid` are the large ranges that have no parts.
    """

    def __init__(self, data: bytes, grammar: Grammar, docstrings: bool) -> None:
        self._data, self._kinds, self._docstrings = data, grammar.kinds, docstrings
        self.marks = dict[int, tuple[str, Cut]]()
        self._opened = dict[int, int]()  # by start, the end of a node that contains definitions
        self.solid = list[tuple[int, int, str, Cut]]()
        left = [(grammar.parse(data), "", SECTION)]
        while left:
            left += self._scope(*left.pop())

    def sections(self) -> list[BlockStart]:
        """Return the starts, by byte, from last to first.

        A line that only opens a body (`class A:`) belongs to the first definition in it.
        """
        kept: list[BlockStart] = []
        for start, (heading, cut) in sorted(self.marks.items(), reverse=True):
            if kept and kept[-1][2] is SECTION and kept[-1][0] < self._opened.get(start, 0):
                below, inner, _ = kept[-1]
                if b"\n" not in self._data[start:below].strip():
                    heading, kept[-1] = inner, (below, inner, PART)
            kept.append((start, heading, cut))
        return kept

    def _scope(self, scope: Node, name: str, after_docstring: Cut) -> Iterator[tuple[Node, str, Cut]]:
        """Mark the parts of a module or class; the scopes inside are returned."""
        for start, node, cut in self._parts(scope, name, after_docstring):
            definition = definition_of(node, self._kinds)
            if definition is not None:
                yield from self._definition(node.start_byte if start is None else start, definition, name)
                continue
            self._mark(start, name, cut)
            if node.type in self._kinds.through:
                self._opened[node.start_byte if start is None else start] = node.end_byte
                yield node, name, PART
            else:
                self._statements(node, name)

    def _definition(self, start: int, node: Node, scope: str) -> Iterator[tuple[Node, str, Cut]]:
        """Mark a definition as a section.

        The docstring of a large function is a section of its own: it is what people search for.
        """
        name, inside = qualified_name(self._data, node, scope), body(node)
        self._mark(start, name, SECTION)
        if inside is None:
            self._statements(node, name)
        elif node.type in self._kinds.scopes:
            self._opened[start] = node.end_byte
            yield inside, name, PART
        elif inside.end_byte - inside.start_byte > SMALL_BODY:
            for begin, statement, cut in self._parts(inside, name, SECTION):
                self._mark(begin, name, cut)
                self._statements(statement, name)

    def _parts(self, node: Node, name: str, after_docstring: Cut) -> Iterator[tuple[int | None, Node, Cut | None]]:
        """Yield the children with their starts and cuts.

        The first child has no cut: it stays with the line above it.
        """
        forced: Cut | None = None
        opening = self._docstrings
        for at, (start, child) in enumerate(code_positions.nodes_with_starts(self._data, node.named_children)):
            yield start, child, (forced or self._cut(start, 0)) if at else None
            forced = None
            if opening and _is_docstring(child):
                forced = after_docstring
                if child.end_byte - child.start_byte > LONG_DOCSTRING:
                    self.solid.append((child.start_byte, child.end_byte, name, PARAGRAPH))
            opening = opening and child.type in ATTACHED_ABOVE

    def _statements(self, statement: Node, name: str) -> None:
        """Mark the parts of a large statement, with weaker cuts the deeper they are."""
        left = [(statement, 1)] if statement.end_byte - statement.start_byte > LARGE_TEXT else []
        while left:
            node, depth = left.pop()
            solid = True
            for start, child in code_positions.nodes_with_starts(
                self._data, () if "string" in node.type else node.named_children
            ):
                is_list = child.type.endswith(_LISTS)
                if start is not None and start > node.start_byte and not is_list:
                    self._mark(start, name, self._cut(start, depth))
                    solid = False
                if child.end_byte - child.start_byte > LARGE_TEXT:
                    left.append((child, depth if is_list else depth + 1))
                    solid = False
            if solid:
                self.solid.append((node.start_byte, node.end_byte, name, LINE))

    def _cut(self, start: int | None, depth: int) -> Cut:
        after_blank, else_ = _CUTS[min(depth, len(_CUTS) - 1)]
        return after_blank if start is not None and code_positions.follows_blank(self._data, start) else else_

    def _mark(self, start: int | None, name: str, cut: Cut | None) -> None:
        if start is not None and cut is not None and (start not in self.marks or cut > self.marks[start][1]):
            self.marks[start] = name, cut


def _is_docstring(node: Node) -> bool:
    return node.type == "expression_statement" and [child.type for child in node.named_children] == ["string"]
