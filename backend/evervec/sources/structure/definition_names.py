"""Which node of a tree is a definition, and its name."""

import re
from typing import Final

from tree_sitter import Node

from evervec.sources.structure.grammars import ATTACHED_ABOVE, BODY_NODES, CALLABLE_VALUES, ONLY_WITH_BODY, NodeTypes
from evervec.sources.structure.headings import LONGEST_HEADING

_BODY: Final = ("body", "block")
_RECEIVER: Final = re.compile(r"\(\s*(?:\w+\s)?[\s*]*(\w+)")
_SEPARATOR: Final = re.compile(r"::|\\")


def definition_of(node: Node, kinds: NodeTypes) -> Node | None:
    """Return the definition that a node is, or is wrapped around; None if it is none, or several."""
    while node.type in kinds.wraps:
        inner = [child for child in node.named_children if child.type not in ATTACHED_ABOVE]
        if not inner or (len(inner) > 1 and inner[-2].type == inner[-1].type):
            return None
        node = inner[-1]
    if node.type in ONLY_WITH_BODY and body(node) is None:
        return None
    return node if node.type in kinds.scopes or (node.type in kinds.leaves and _whole(node)) else None


def _whole(node: Node) -> bool:
    """Return False for a variable with a plain value, and for another name of a type."""
    if node.type == "type_definition":
        named = node.child_by_field_name("type")
        return named is not None and body(named) is not None
    if node.type in ("variable_declarator", "assignment_expression", "field_definition", "public_field_definition"):
        value = _value(node)
        return value is not None and value.type in CALLABLE_VALUES
    return True


def _value(node: Node) -> Node | None:
    return node.child_by_field_name("value") or node.child_by_field_name("right")


def body(node: Node) -> Node | None:
    """Return the node that holds the members or statements of a definition."""
    found = node.child_by_field_name("body")
    if found is None and (value := _value(node)) is not None:
        found = value.child_by_field_name("body")
    if found is None and node.named_child_count:
        last = node.named_children[-1]
        found = last if last.type.endswith(_BODY) else None
    while found is not None and found.named_child_count == 1 and found.named_children[0].type in BODY_NODES:
        found = found.named_children[0]
    return found


def qualified_name(data: bytes, node: Node, within: str) -> str:
    """Return `Task.cancel`, whatever the language writes, of bounded length; the node is of the tree of `data`."""
    own = _text(data, _named(node)) or node.type.partition("_")[0]
    receiver = node.child_by_field_name("receiver")
    if receiver is not None and (found := _RECEIVER.match(_text(data, receiver))):
        own = f"{found[1]}.{own}"
    return (f"{within}.{own}" if within else own)[-LONGEST_HEADING:]


def _named(node: Node) -> Node | None:
    """Return the node that holds the name; in C it is inside the declarator, in Rust an `impl` has its type's name."""
    for field in ("name", "property", "left", "type" if node.type == "impl_item" else "declarator"):
        found = node.child_by_field_name(field)
        if found is not None:
            break
    while found is not None and found.type.endswith("_declarator"):
        inner = found.named_children
        found = found.child_by_field_name("declarator") or (inner[-1] if inner else None)
    return found


def _text(data: bytes, node: Node | None) -> str:
    if node is None:
        return ""
    name = data[node.start_byte : min(node.end_byte, node.start_byte + 4 * LONGEST_HEADING)].decode("utf-8", "replace")
    return _SEPARATOR.sub(".", " ".join(name.split()))
