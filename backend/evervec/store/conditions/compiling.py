"""A condition as SQL: an expression with parameters for each kind that has its fields; no value is ever part of the text."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, assert_never

import orjson

from evervec.domain.conditions import reading
from evervec.domain.conditions.tree import AllOf, AnyOf, Comparison, Condition, Leaf, Missing, Not, OneOf, StartsWith
from evervec.errors import ConditionError
from evervec.store.conditions import fields
from evervec.store.conditions.fields import TABLES, FieldType, SearchField
from evervec.store.schema.embeddables import Embeddable

SQL_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
FIELD_CASTS = {
    FieldType.TEXT: "text",
    FieldType.WHOLE: "bigint",
    FieldType.NUMBER: "numeric",
    FieldType.TIME: "timestamptz",
}
WITHOUT_FIELD = "false"
"""What a comparison of a field is for a kind without that field."""


@dataclass(frozen=True)
class CheckedCondition:
    """A condition whose fields and values fit, the kinds that have at least one of its fields, and the declared fields."""

    condition: Condition
    kinds: tuple[Embeddable, ...]
    declared: frozenset[str] = frozenset()

    def for_kind(self, embeddable: Embeddable) -> "CheckedCondition":
        """Return the condition for one kind alone."""
        return replace(self, kinds=(embeddable,))

    def expression(self, embeddable: Embeddable, values: list[object]) -> str:
        """Return the expression over `TABLES` of a kind; add its values to those of the statement."""
        return _Compiler(embeddable, self.declared, values).condition(self.condition)

    def of_record(self, values: list[object], kinds: Sequence[Embeddable] | None = None) -> str:
        """Return the expression over the record `e` of embeddings: whether its row fulfils this now.

        A CASE of scalar queries, which the planner leaves where they are: joins would cost a search the order of its index.
        """
        cases = (
            f"WHEN {one.kind:d} THEN (SELECT {self.expression(one, values)} FROM {TABLES[one.kind]} WHERE r.{one.key} = e.row_id)"
            for one in self.kinds
            if kinds is None or one in kinds
        )
        return f"coalesce(CASE e.kind {' '.join(cases)} END, false)"


def check(condition: Condition, kinds: Sequence[Embeddable], declared: Collection[str]) -> CheckedCondition:
    """Return a condition for those of some kinds that have its fields.

    Raises `ConditionError` for a field that none of them has, and for a value that does not fit its field.
    """
    names = {leaf.field for leaf in reading.leaves(condition)}
    for name in sorted(names):
        if not any(fields.find(one, name, declared) for one in kinds):
            raise fields.unknown(name, kinds, declared)
    fitting = tuple(one for one in kinds if not names or any(fields.find(one, name, declared) for name in names))
    checked = CheckedCondition(condition, fitting, frozenset(declared))
    for one in fitting:
        checked.expression(one, [])
    return checked


@dataclass
class _Compiler:
    embeddable: Embeddable
    declared: Collection[str]
    values: list[object] = field(default_factory=list)

    def condition(self, one: Condition, *, negated: bool = False) -> str:
        match one:
            case AllOf():
                return f"({' AND '.join(self.condition(part, negated=negated) for part in one.of) or 'true'})"
            case AnyOf():
                return f"({' OR '.join(self.condition(part, negated=negated) for part in one.of) or 'false'})"
            case Not():
                return f"(NOT {self.condition(one.of, negated=True)})"
            case _:
                found = fields.find(self.embeddable, one.field, self.declared)
                if found is None:
                    return WITHOUT_FIELD
                compared = self.json(one, found) if found.type is FieldType.JSON else self.plain(one, found)
                # NULL is as good as false at the top, but NOT NULL is not true
                return f"coalesce({compared}, false)" if negated else f"({compared})"

    def plain(self, leaf: Leaf, column: SearchField) -> str:
        match leaf:
            case Missing():
                return f"{column.sql} IS NULL"
            case StartsWith():
                if column.type is not FieldType.TEXT:
                    raise _unfit(leaf.field, column, leaf.value)
                return f"starts_with({column.sql}, {self.parameter(leaf.value)}::text)"
            case Comparison():
                value, cast = _fitted(leaf.field, column, leaf.value)
                return f"{_operand(column, cast)} {SQL_OPERATORS[leaf.op]} {self.parameter(value)}::{cast}"
            case OneOf():
                fitted = [_fitted(leaf.field, column, value) for value in leaf.values]
                casts = {cast for _, cast in fitted} or {FIELD_CASTS[column.type]}
                cast = "numeric" if len(casts) > 1 else casts.pop()
                listed = [
                    Decimal(value) if cast == "numeric" and isinstance(value, int) else value for value, _ in fitted
                ]
                return f"{_operand(column, cast)} = ANY({self.parameter(listed)}::{cast}[])"
            case _:
                assert_never(leaf)

    def json(self, leaf: Leaf, column: SearchField) -> str:
        found = f"({column.sql} #> {self.parameter(list(column.path))}::text[])"
        match leaf:
            case Missing():
                return f"coalesce({found}, 'null') = 'null'"
            case StartsWith():
                return f"jsonb_typeof({found}) = 'string' AND starts_with({found} #>> '{{}}', {self.parameter(leaf.value)}::text)"
            case OneOf():
                listed = [orjson.dumps(_json_value(value)).decode() for value in leaf.values]
                return f"EXISTS (SELECT FROM unnest({self.parameter(listed)}::text[]) v WHERE {found} @> v::jsonb)"
            case Comparison(op="eq" | "ne"):
                value = self.parameter(orjson.dumps(_json_value(leaf.value)).decode())
                # a list is equal to each of its values
                return f"{found} @> {value}::text::jsonb" if leaf.op == "eq" else f"NOT {found} @> {value}::text::jsonb"
            case Comparison():
                return self.json_order(found, leaf)
            case _:
                assert_never(leaf)

    def json_order(self, found: str, leaf: Comparison) -> str:
        value = _json_value(leaf.value)
        match value:
            case bool():
                raise ConditionError(reason=f"{leaf.field}: true and false come in no order; compare by = or !=.")
            case int() | float():
                number = self.parameter(Decimal(str(value)))
                return f"CASE WHEN jsonb_typeof({found}) = 'number' THEN ({found})::numeric {SQL_OPERATORS[leaf.op]} {number}::numeric END"
            case _:
                text = self.parameter(value)
                return (
                    f"CASE WHEN jsonb_typeof({found}) = 'string' "
                    f"THEN ({found} #>> '{{}}') COLLATE \"C\" {SQL_OPERATORS[leaf.op]} {text}::text END"
                )

    def parameter(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def _operand(column: SearchField, cast: str) -> str:
    """Return a column as it is compared: a fraction by its decimal digits (0.9 is 0.9), a text by its code points."""
    match column.type:
        case FieldType.NUMBER:
            return f"{column.sql}::numeric"
        case FieldType.WHOLE if cast == "numeric":
            return f"{column.sql}::numeric"
        case FieldType.TEXT:
            return f'{column.sql} COLLATE "C"'
        case _:
            return column.sql


def _fitted(name: str, column: SearchField, value: Any) -> tuple[Any, str]:
    """Return a value as the driver takes it for a column, with its type in SQL. Raises `ConditionError`."""
    match column.type, value:
        case ((FieldType.WHOLE | FieldType.NUMBER | FieldType.TEXT | FieldType.TIME), bool()):
            raise _unfit(name, column, value)
        case (FieldType.TEXT, str()) | (FieldType.WHOLE, int()) | (FieldType.TIME, datetime()):
            return value, FIELD_CASTS[column.type]
        case ((FieldType.WHOLE | FieldType.NUMBER), (int() | float())):
            return Decimal(str(value)), "numeric"
        case FieldType.TIME, str():
            return _time(name, column, value), FIELD_CASTS[column.type]
        case _:
            raise _unfit(name, column, value)


def _time(name: str, column: SearchField, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _unfit(name, column, text) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _json_value(value: Any) -> Any:
    """Return a value as JSON has it: a time is a text there, and sorts as ISO 8601 does."""
    return value.isoformat() if isinstance(value, datetime) else value


def _unfit(name: str, column: SearchField, value: object) -> ConditionError:
    shown = value.isoformat() if isinstance(value, datetime) else repr(value)[:100]
    example = {
        FieldType.TEXT: 'a text in quotes, for example "ada"',
        FieldType.TIME: "a time, for example 2026-01-31 or 2026-01-31T08:00Z",
    }.get(column.type, "a number, for example 3")
    return ConditionError(reason=f"{name} is compared with {shown}, but it holds a {column.type}: give {example}.")
