"""The languages that tree-sitter parses: the node types of their definitions, and how they are named."""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from time import thread_time
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import compress

from evervec.extras import extra

if TYPE_CHECKING:
    from tree_sitter import Language, Node

ATTACHED_ABOVE: Final = frozenset(
    ["comment", "line_comment", "block_comment", "multiline_comment", "decorator", "attribute_item", "annotation"]
)
"""Node types that belong to the definition or statement directly below them."""

CALLABLE_VALUES: Final = frozenset(["arrow_function", "function_expression", "generator_function", "function", "class"])
"""The values that make an assignment in JavaScript a definition."""

ONLY_WITH_BODY: Final = frozenset(
    ["struct_specifier", "union_specifier", "class_specifier", "enum_specifier", "namespace_definition", "mod_item"]
)
"""Node types that are definitions only with a body: without one they name a type or a file."""


BODY_NODES: Final = frozenset(
    ["block", "statement_list", "statements", "body_statement", "declaration_list", "template_body"]
)
"""A body alone inside another is the same body."""


LEAST_PARSE_SECONDS: Final = 0.5
PARSE_SECONDS_PER_BYTE: Final = 3e-6
"""Ordinary code takes a tenth of it."""

MOST_PARSED_BYTES: Final = 2_000_000
"""A parser takes about a second for so much, and blocks everything else meanwhile."""

MOST_COMPRESSION: Final = 50
"""How many times smaller a file may become when it is compressed; code becomes three to ten times smaller. Endless
repetition of a few characters is ambiguous for a parser: for ten kilobytes of `a=>a=>…` in Java it takes 4 GB."""


class NodeTypes(NamedTuple):
    """The node types of a language that matter here."""

    scopes: frozenset[str]
    leaves: frozenset[str]
    wraps: frozenset[str]
    through: frozenset[str]


@dataclass(frozen=True)
class Grammar:
    """A language: node types, as words.

    `wraps` are what a definition may be wrapped in (a decorator, an export), `through` the statements that may hold
    definitions without being one (`if` at the top of a module).
    """

    package: str
    scopes: str
    leaves: str
    wraps: str = ""
    through: str = ""
    entry: str = "language"

    @cached_property
    def language(self) -> "Language":
        """Return the parser's tables, loaded when the first file of the language comes."""
        with extra("code", "Reading source code"):
            from tree_sitter import Language

            return Language(getattr(import_module(self.package), self.entry)())

    @cached_property
    def kinds(self) -> NodeTypes:
        """Return the words as sets. A node that does not parse may contain definitions as well."""
        sets = (frozenset(words.split()) for words in (self.scopes, self.leaves, self.wraps, f"{self.through} ERROR"))
        return NodeTypes(*sets)

    def parse(self, data: bytes) -> "Node":
        """Return the root of the tree; what does not parse is an ERROR node in it.

        Cut texts out of `data` by the nodes' positions: a node's own `text` would read memory that is released here.
        Raises ValueError for what is not code: too large, too repetitive, or far slower to parse than code is.
        """
        if len(data) > MOST_PARSED_BYTES or len(compress(data, 1)) * MOST_COMPRESSION < len(data):
            raise ValueError(f"{len(data)} bytes that are packed or generated, not written")
        language = self.language
        from tree_sitter import Parser

        end = thread_time() + LEAST_PARSE_SECONDS + PARSE_SECONDS_PER_BYTE * len(data)
        views: list[memoryview] = []

        def read(at: int, _: object) -> memoryview:
            views.append(memoryview(data)[at:])
            return views[-1]

        try:
            tree = Parser(language).parse(read, progress_callback=lambda _at, _failed: thread_time() > end)
        finally:
            # the library (0.26) never frees the buffers that it was given: at least the text behind them is released
            for view in views:
                view.release()
        return tree.root_node


_JAVASCRIPT: Final = Grammar(
    "tree_sitter_javascript",
    "class_declaration",
    "function_declaration generator_function_declaration method_definition variable_declarator assignment_expression "
    "field_definition public_field_definition",
    wraps="export_statement lexical_declaration variable_declaration expression_statement",
)
_SCRIPT_SCOPES: Final = "class_declaration abstract_class_declaration internal_module module"
_SCRIPT_LEAVES: Final = f"{_JAVASCRIPT.leaves} interface_declaration type_alias_declaration enum_declaration"
_C_LEAVES: Final = "function_definition struct_specifier union_specifier enum_specifier type_definition"
_C_THROUGH: Final = "preproc_ifdef preproc_if preproc_else preproc_elif linkage_specification declaration_list"

GRAMMARS: Final[dict[str, Grammar]] = {
    "python": Grammar(
        "tree_sitter_python",
        "class_definition",
        "function_definition",
        wraps="decorated_definition",
        through="if_statement else_clause elif_clause try_statement except_clause finally_clause with_statement block",
    ),
    "javascript": _JAVASCRIPT,
    "typescript": Grammar(
        "tree_sitter_typescript",
        _SCRIPT_SCOPES,
        _SCRIPT_LEAVES,
        _JAVASCRIPT.wraps,
        "ambient_declaration",
        "language_typescript",
    ),
    "tsx": Grammar(
        "tree_sitter_typescript",
        _SCRIPT_SCOPES,
        _SCRIPT_LEAVES,
        _JAVASCRIPT.wraps,
        "ambient_declaration",
        "language_tsx",
    ),
    "go": Grammar(
        "tree_sitter_go",
        "",
        "function_declaration method_declaration type_spec type_alias",
        wraps="type_declaration",
        through="type_declaration",
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        "impl_item trait_item mod_item",
        "function_item function_signature_item struct_item enum_item union_item macro_definition",
        through="foreign_mod_item declaration_list",
    ),
    "java": Grammar(
        "tree_sitter_java",
        "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration",
        "method_declaration constructor_declaration compact_constructor_declaration",
        through="enum_body_declarations",
    ),
    "c": Grammar("tree_sitter_c", "", _C_LEAVES, through=_C_THROUGH),
    "cpp": Grammar(
        "tree_sitter_cpp",
        "namespace_definition class_specifier struct_specifier union_specifier",
        "function_definition enum_specifier type_definition concept_definition",
        wraps="template_declaration",
        through=_C_THROUGH,
    ),
    "csharp": Grammar(
        "tree_sitter_c_sharp",
        "namespace_declaration class_declaration struct_declaration interface_declaration record_declaration",
        "enum_declaration delegate_declaration method_declaration constructor_declaration destructor_declaration "
        "operator_declaration indexer_declaration local_function_statement",
        wraps="global_statement",
        through="preproc_if preproc_else preproc_elif",
    ),
    "ruby": Grammar(
        "tree_sitter_ruby", "module class", "method singleton_method", through="singleton_class body_statement"
    ),
    "php": Grammar(
        "tree_sitter_php",
        "namespace_definition class_declaration interface_declaration trait_declaration enum_declaration",
        "function_definition method_declaration",
        through="if_statement compound_statement",
        entry="language_php",
    ),
    "bash": Grammar("tree_sitter_bash", "", "function_definition", through="if_statement"),
    "kotlin": Grammar(
        "tree_sitter_kotlin", "class_declaration object_declaration companion_object", "function_declaration"
    ),
    "swift": Grammar(
        "tree_sitter_swift",
        "class_declaration protocol_declaration",
        "function_declaration protocol_function_declaration init_declaration deinit_declaration subscript_declaration",
    ),
    "scala": Grammar(
        "tree_sitter_scala",
        "class_definition object_definition trait_definition enum_definition package_object",
        "function_definition function_declaration given_definition extension_definition",
    ),
}
