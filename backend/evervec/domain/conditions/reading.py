"""Read a condition from text, from JSON, or from its tree, and refuse one that is too large."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from evervec.domain.conditions.tree import (
    MOST_CLAUSES,
    MOST_CONDITION_DEPTH,
    AllOf,
    AnyOf,
    Condition,
    Leaf,
    Not,
)
from evervec.errors import ConditionError

if TYPE_CHECKING:
    pass

Given = str | dict[str, Any] | Leaf | AllOf | AnyOf | Not
"""A condition as people write it: text, JSON, or its tree."""

MOST_TEXT = 100_000
"""The longest text of a condition."""

CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)
EXAMPLE = """author = "ada" AND sent_at > 2026-01-01"""


def read(given: Given) -> Condition:
    """Return the tree of a condition. Raises `ConditionError` for one that can not be read, or is too large."""
    match given:
        case str():
            condition = _parsed(given)
        case dict():
            condition = _validated(given)
        case _:
            condition = given
    _limit(condition)
    return condition


def read_json(body: str | bytes) -> Condition:
    """Return the tree of a condition in JSON. Raises `ConditionError`."""
    try:
        return read(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise ConditionError(reason=f"It is not JSON: {str(error)[:200]}.") from None


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Yield the comparisons of a condition, from left to right."""
    match condition:
        case AllOf() | AnyOf():
            for part in condition.of:
                yield from leaves(part)
        case Not():
            yield from leaves(condition.of)
        case _:
            yield condition


def _validated(given: dict[str, Any]) -> Condition:
    _limit_nesting(given)
    try:
        return CONDITION.validate_python(given)
    except ValidationError as error:
        raise ConditionError(reason=_first(error)) from None


def _limit_nesting(given: object) -> None:
    """Refuse JSON that is nested too deeply, before anything else walks through it."""
    level, depth = [given], 0
    while level:
        depth += 1
        if depth > 2 * MOST_CONDITION_DEPTH + 2:  # a list of parts is a level of its own
            raise ConditionError(reason=f"It is nested more than {MOST_CONDITION_DEPTH} deep.")
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ())
            if isinstance(inner, dict | list | tuple)
        ]


def _limit(condition: Condition) -> None:
    level: list[Condition] = [condition]
    depth = clauses = 0
    while level:
        depth, clauses = depth + 1, clauses + len(level)
        if depth > MOST_CONDITION_DEPTH:
            raise ConditionError(reason=f"It is nested more than {MOST_CONDITION_DEPTH} deep.")
        if clauses > 2 * MOST_CLAUSES:
            raise ConditionError(reason=f"It has more than {MOST_CLAUSES} parts. A list of values is one: use IN.")
        level = [part for one in level for part in _parts(one)]


def _parts(condition: Condition) -> tuple[Condition, ...]:
    match condition:
        case AllOf() | AnyOf():
            return condition.of
        case Not():
            return (condition.of,)
        case _:
            return ()


def _parsed(text: str) -> Condition:
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

    if len(text) > MOST_TEXT:
        raise ConditionError(
            reason=f"It has {len(text):,} characters, {MOST_TEXT:,} at most. A long list fits in JSON."
        )
    from evervec.domain.conditions.language import Builder, parser

    try:
        built: Condition = Builder().transform(parser().parse(text))
    except UnexpectedInput as error:
        column = getattr(error, "column", None)
        if (
            (isinstance(error, UnexpectedToken) and error.token.type == "$END")
            or not isinstance(column, int)
            or column < 1
        ):
            raise ConditionError(reason=f"It ends too early: {_end(text)}. Write for example {EXAMPLE}.") from None
        what = "a character" if isinstance(error, UnexpectedCharacters) else "a word"
        near = text[column - 1 :][:30]
        raise ConditionError(
            reason=f"There is {what} that does not belong at column {column}: {near!r}. Texts stand in quotes; write for "
            f"example {EXAMPLE}."
        ) from None
    except VisitError as error:
        if isinstance(error.orig_exc, ConditionError):
            raise error.orig_exc from None
        if isinstance(error.orig_exc, ValidationError):
            raise ConditionError(reason=_first(error.orig_exc)) from None
        raise
    except RecursionError:
        raise ConditionError(reason=f"It is nested more than {MOST_CONDITION_DEPTH} deep.") from None
    return built


def _first(error: ValidationError) -> str:
    """Return the first thing that is wrong, and where."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place[:200]}{': ' if place else ''}{first['msg'].removeprefix('Value error, ')[:300]}."


def _end(text: str) -> str:
    return repr(text[-30:]) if text.strip() else "it is empty"
