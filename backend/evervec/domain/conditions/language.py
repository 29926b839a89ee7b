"""The text of a condition: its grammar, and the tree that is built of it."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, v_args

from evervec.domain.conditions.tree import AllOf, AnyOf, Comparison, Condition, Missing, Not, OneOf, StartsWith, Value
from evervec.errors import ConditionError

GRAMMAR = r"""
?start: either
?either: both (_OR both)*                                     -> any_of
?both: term (_AND term)*                                      -> all_of
?term: _NOT term                                              -> negation
     | "(" either ")"
     | field COMPARED value                                   -> comparison
     | field _IN "(" [value ("," value)*] ")"                 -> one_of
     | field _NOT _IN "(" [value ("," value)*] ")"            -> none_of
     | field _STARTS _WITH value                              -> starts
     | field _BETWEEN value _AND value                        -> between
     | field _IS _NULL                                        -> missing
     | field _IS _NOT _NULL                                   -> present
field: NAME ("." (NAME | QUOTED))*
?value: QUOTED -> text | TIME -> time | NUMBER -> number | _TRUE -> yes | _FALSE -> no

COMPARED: "==" | "=" | "!=" | "<>" | "<=" | ">=" | "<" | ">"
_OR.2: /or\b/i
_AND.2: /and\b/i
_NOT.2: /not\b/i
_IN.2: /in\b/i
_IS.2: /is\b/i
_NULL.2: /null\b/i
_STARTS.2: /starts\b/i
_WITH.2: /with\b/i
_BETWEEN.2: /between\b/i
_TRUE.2: /true\b/i
_FALSE.2: /false\b/i
NAME: /[A-Za-z_][A-Za-z0-9_]*/
QUOTED: /"(?:""|[^"])*"|'(?:''|[^'])*'/
TIME.3: /\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?(?![\w-])/
NUMBER.1: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?(?![\w.])/
%ignore /\s+/
"""
WRITTEN_OPERATORS = {"=": "eq", "==": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


@cache
def parser() -> Lark:
    """Return the parser of the language; LALR, so that its time is linear in the text."""
    return Lark(GRAMMAR, parser="lalr", maybe_placeholders=False)


def _text(token: str) -> str:
    """Return a quoted text without its quotes; a quote inside is doubled, as in SQL."""
    return token[1:-1].replace(token[0] * 2, token[0])


@v_args(inline=True)
class Builder(Transformer[Token, Any]):
    """Builds the tree of a condition from its parsed text."""

    def any_of(self, *parts: Condition) -> Condition:
        """Join by OR."""
        return parts[0] if len(parts) == 1 else AnyOf(of=parts)

    def all_of(self, *parts: Condition) -> Condition:
        """Join by AND."""
        return parts[0] if len(parts) == 1 else AllOf(of=parts)

    def negation(self, part: Condition) -> Condition:
        """Negate."""
        return Not(of=part)

    def comparison(self, field: str, operator: Token, value: Value) -> Condition:
        """Compare with a value."""
        return Comparison.model_validate({"op": WRITTEN_OPERATORS[operator], "field": field, "value": value})

    def one_of(self, field: str, *values: Value) -> Condition:
        """Compare with a list of values."""
        return OneOf(field=field, values=values)

    def none_of(self, field: str, *values: Value) -> Condition:
        """Compare with a list of values, none of which it may be."""
        return Not(of=OneOf(field=field, values=values))

    def starts(self, field: str, value: Value) -> Condition:
        """Compare the beginning."""
        if not isinstance(value, str):
            raise ConditionError(reason=f"{field} STARTS WITH takes a text in quotes.")
        return StartsWith(field=field, value=value)

    def between(self, field: str, first: Value, last: Value) -> Condition:
        """Compare with both ends of a range, which belong to it."""
        return AllOf(of=(Comparison(op="ge", field=field, value=first), Comparison(op="le", field=field, value=last)))

    def missing(self, field: str) -> Condition:
        """Ask for rows without a value."""
        return Missing(field=field)

    def present(self, field: str) -> Condition:
        """Ask for rows with a value."""
        return Not(of=Missing(field=field))

    def field(self, *parts: Token) -> str:
        """Return the name of a field with the path in it."""
        return ".".join(_text(part) if part.type == "QUOTED" else str(part) for part in parts)

    def text(self, token: Token) -> str:
        """Return a text."""
        return _text(token)

    def number(self, token: Token) -> int | float:
        """Return a number, whole where it has neither a fraction nor an exponent."""
        return int(token) if token.lstrip("+-").isdigit() else float(token)

    def time(self, token: Token) -> datetime:
        """Return a time; without a zone it is UTC."""
        try:
            moment = datetime.fromisoformat(token)
        except ValueError as error:
            raise ConditionError(reason=f"{token} is no time: {error}.") from None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def yes(self) -> bool:
        """Return true."""
        return True

    def no(self) -> bool:
        """Return false."""
        return False
