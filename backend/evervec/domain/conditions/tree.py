"""The tree of a condition: comparisons of fields, joined by AND, OR and NOT."""

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

MOST_CLAUSES = 500
"""The most comparisons in a condition."""
MOST_CONDITION_DEPTH = 32
"""How deep AND, OR and NOT may be nested."""
MOST_LISTED = 100_000
"""The most values of one list."""
MOST_VALUE_CHARACTERS = 10_000
"""The longest text that a field is compared with."""


def _usable(value: object) -> object:
    """Return what a field can be compared with. Raises `ValueError` for anything else, with the reason."""
    match value:
        case bool() | datetime():
            return value
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError(f"{str(value)[:30]} is beyond 64 bits")
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is no number that a field may have")
        case str() if "\0" in value:
            raise ValueError("a text has the character NUL, which PostgreSQL can not store: no field has it")
        case str() if len(value) > MOST_VALUE_CHARACTERS:
            raise ValueError(f"a text has {len(value):,} characters, {MOST_VALUE_CHARACTERS:,} at most")
        case str() if any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise ValueError("a text has half of a surrogate pair, which is no character")
        case int() | float() | str():
            return value
        case _:
            raise ValueError(
                "a value is a text, a number, true, false or a time; for no value use the operator missing"
            )


def _with_zone(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


FieldName = Annotated[StrictStr, Field(min_length=1, max_length=200), BeforeValidator(_usable)]
TextValue = Annotated[StrictStr, BeforeValidator(_usable)]
Value = Annotated[
    StrictBool | StrictInt | StrictFloat | StrictStr | Annotated[datetime, Strict()],
    BeforeValidator(_usable),
    AfterValidator(_with_zone),
]
"""What a field is compared with. In JSON a time is a text, as ISO 8601 writes it; without a zone it is UTC."""


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __and__(self, other: "Condition") -> "AllOf":
        return AllOf(of=(cast("Condition", self), other))

    def __or__(self, other: "Condition") -> "AnyOf":
        return AnyOf(of=(cast("Condition", self), other))

    def __invert__(self) -> "Not":
        return Not(of=cast("Condition", self))


class Comparison(_Node):
    """A field is equal to a value (`eq`), not equal (`ne`), or lies before or after it (`lt`, `le`, `gt`, `ge`).

    A field without a value fulfils none of them.
    """

    op: Literal["eq", "ne", "lt", "le", "gt", "ge"]
    field: FieldName
    value: Value


class OneOf(_Node):
    """A field has one of the values."""

    op: Literal["in"] = "in"
    field: FieldName
    values: tuple[Value, ...] = Field(max_length=MOST_LISTED)


class StartsWith(_Node):
    """A text field begins with a text."""

    op: Literal["starts"] = "starts"
    field: FieldName
    value: TextValue


class Missing(_Node):
    """A field has no value."""

    op: Literal["missing"] = "missing"
    field: FieldName


class AllOf(_Node):
    """All conditions are fulfilled; with none of them, every row is."""

    op: Literal["and"] = "and"
    of: tuple["Condition", ...] = Field(max_length=MOST_CLAUSES)


class AnyOf(_Node):
    """At least one condition is fulfilled; with none of them, no row is."""

    op: Literal["or"] = "or"
    of: tuple["Condition", ...] = Field(max_length=MOST_CLAUSES)


class Not(_Node):
    """A condition is not fulfilled; a row whose field has no value fulfils the NOT of every comparison of it."""

    op: Literal["not"] = "not"
    of: "Condition"


Leaf = Comparison | OneOf | StartsWith | Missing
Condition = Annotated[Leaf | AllOf | AnyOf | Not, Field(discriminator="op")]

for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()
