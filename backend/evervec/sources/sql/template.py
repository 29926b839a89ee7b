"""Templates that turn a record into text: `Order {number}: {status}` is filled in, nothing is computed."""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from string import Formatter

import orjson

from evervec.domain.text import clean, is_blank

Line = tuple[tuple[str, str | None], ...]
"""The parts of a line: the text before a field, and the field's name; None after the last field."""


def fields(template: str) -> tuple[str, ...]:
    """Return the columns that a template names, each once, in order.

    Raises `ValueError` for an invalid one: an unmatched brace, a field without a name, a format, an attribute.
    """
    return tuple(dict.fromkeys(name for line in lines(template) for _, name in line if name is not None))


def render(template: str, record: Mapping[str, object]) -> str:
    """Return the template filled in with a record's values. A line whose fields are all empty is left out.

    A record without a value in any field gives "". Raises `KeyError` for a field that the record lacks.
    """
    shown = {name: _shown(record[name]) for name in fields(template)}
    if all(map(is_blank, shown.values())):
        return ""
    return clean("\n".join(_filled(line, shown) for line in lines(template) if _has_values(line, shown)))


def _has_values(line: Line, shown: Mapping[str, str]) -> bool:
    names = [name for _, name in line if name is not None]
    return not names or any(not is_blank(shown[name]) for name in names)


def _filled(line: Line, shown: Mapping[str, str]) -> str:
    return "".join(literal + (shown[name] if name is not None else "") for literal, name in line)


@lru_cache(maxsize=256)
def lines(template: str) -> tuple[Line, ...]:
    """Return the lines of a template, each with its parts. Raises `ValueError` for an invalid one."""
    # a field's name has no line break, so a template can be read line by line
    return tuple(tuple(_part(*part) for part in Formatter().parse(line)) for line in template.split("\n"))


def _part(literal: str, name: str | None, spec: str | None, conversion: str | None) -> tuple[str, str | None]:
    if name is None:
        return literal, None
    if not name or name.isdecimal():
        raise ValueError(f"a field in braces needs a column's name, {{{name}}} has none")
    if spec or conversion:
        raise ValueError(f"{{{name}}} has a format or a conversion; a template only fills in")
    if any(mark in name for mark in ".[]"):
        raise ValueError(f"{{{name}}} reaches into a value; name a column, or make it one in a view")
    return literal, name


def _shown(value: object) -> str:
    """Return a value for people to read, the same on every machine."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format(value, "f")
        case list() | tuple() if not any(isinstance(item, list | tuple | dict) for item in value):
            return ", ".join(map(_shown, value))
        case dict() | list() | tuple():
            return orjson.dumps(value, default=_shown, option=orjson.OPT_NON_STR_KEYS).decode()
        case bytes():
            return value.hex()
    moment = getattr(value, "isoformat", None)
    return str(moment() if moment is not None else value)
