"""Conditions: what people write is what is meant, in text and as JSON, and nothing of a stranger takes long."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.conditions.reading import CONDITION, leaves, read, read_json
from evervec.domain.conditions.tree import (
    MOST_CLAUSES,
    MOST_CONDITION_DEPTH,
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Missing,
    Not,
    OneOf,
    StartsWith,
)
from evervec.errors import ConditionError

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
ADA = Comparison(op="eq", field="author", value="ada")
SINCE = Comparison(op="gt", field="sent_at", value=NEW_YEAR)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('author = "ada" AND sent_at > 2026-01-01', AllOf(of=(ADA, SINCE))),
        ("author == 'ada'", ADA),
        ("author <> 'it''s'", Comparison(op="ne", field="author", value="it's")),
        ('NOT (author = "ada" or sent_at > 2026-01-01T00:00Z)', Not(of=AnyOf(of=(ADA, SINCE)))),
        ("score >= .5", Comparison(op="ge", field="score", value=0.5)),
        ("version < 3", Comparison(op="lt", field="version", value=3)),
        ("id IN (1, 2)", OneOf(field="id", values=(1, 2))),
        ("id not in (1)", Not(of=OneOf(field="id", values=(1,)))),
        ('uri STARTS WITH "docs/"', StartsWith(field="uri", value="docs/")),
        ("signal IS NULL", Missing(field="signal")),
        ("signal is not null", Not(of=Missing(field="signal"))),
        ('fields."two words".x = true', Comparison(op="eq", field="fields.two words.x", value=True)),
        (
            "version BETWEEN 1 AND 2 AND author = 'ada'",
            AllOf(
                of=(
                    AllOf(
                        of=(
                            Comparison(op="ge", field="version", value=1),
                            Comparison(op="le", field="version", value=2),
                        )
                    ),
                    ADA,
                )
            ),
        ),
        # a word that begins like one of the language is a name
        ("order = 'or' and notes = 'not'", read("order = 'or'") & read("notes = 'not'")),
        ("sent_at > 2026-01-01 02:00+02:00", SINCE),
    ],
)
def test_a_text_says_what_is_meant(text: str, meant: Condition) -> None:
    assert read(text) == meant


@pytest.mark.parametrize(
    ("given_text", "said"),
    [
        ("", "it is empty"),
        ("author =", "ends too early: 'author ='"),
        ("author = ada", "column 10: 'ada'. Texts stand in quotes"),
        ('author = "ada', "column 10"),
        ('author = "ada"; DROP TABLE messages', "column 15: '; DROP TABLE messages'"),
        ("sent_at > 2026-02-30", "2026-02-30 is no time: day is out of range"),
        ("uri STARTS WITH 3", "takes a text in quotes"),
        ("id = 99999999999999999999", "beyond 64 bits"),
        ('author = "a\0b"', "NUL"),
        ("(" * 10_000, "nested more than|ends too early"),
        ("(" * 10_000 + "id = 1" + ")" * 10_000, "nested more than|parts"),
        ("NOT " * 10_000 + "id = 1", "nested more than"),
        (" OR ".join(["id = 1"] * 10_000), "at most 500"),
        ("id = 1 " * 100_000, "characters, 100,000 at most"),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_place(given_text: str, said: str) -> None:
    with pytest.raises(ConditionError, match=said):
        read(given_text)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "op"),
        ({"op": "regex", "field": "uri", "value": "(a+)+$"}, "does not match any of the expected tags"),
        ({"op": "eq", "field": "author"}, "eq.value: Field required"),
        ({"op": "eq", "field": "", "value": 1}, "at least 1 character"),
        ({"op": "eq", "field": "author", "value": None}, "use the operator missing"),
        ({"op": "eq", "field": "author", "value": ["ada"]}, "a value is a text, a number"),
        ({"op": "eq", "field": "score", "value": float("nan")}, "nan is no number"),
        ({"op": "eq", "field": "author", "value": "\ud800"}, "surrogate"),
        ({"op": "eq", "field": "author", "value": "a\0"}, "NUL"),
        ({"op": "eq", "field": "author", "value": "a", "sql": "1=1"}, "Extra inputs"),
        ({"op": "and", "of": [{"op": "eq", "field": "id", "value": 1}] * 501}, "at most 500"),
    ],
)
def test_json_that_is_no_condition_is_refused(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ConditionError, match=said):
        read(body)


def test_json_of_any_depth_and_breadth_is_refused() -> None:
    deep: dict[str, Any] = {"op": "eq", "field": "id", "value": 1}
    for _ in range(10_000):
        deep = {"op": "not", "of": deep}
    half = [{"op": "or", "of": [{"op": "eq", "field": "id", "value": 1}] * 400}] * 400
    for given_json in (deep, {"op": "and", "of": half}):
        with pytest.raises(ConditionError):
            read(given_json)
    with pytest.raises(ConditionError, match="not JSON"):
        read_json("[" * 100_000)


values = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
)
names = st.from_regex(r"[a-z_]{1,8}(\.[a-z]{1,4})?", fullmatch=True)
comparisons = (
    st.builds(Comparison, op=st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), field=names, value=values)
    | st.builds(OneOf, field=names, values=st.lists(values, max_size=4).map(tuple))
    | st.builds(StartsWith, field=names, value=st.text("abc ", max_size=5))
    | st.builds(Missing, field=names)
)
trees: st.SearchStrategy[Condition] = st.recursive(
    comparisons,
    lambda inner: (
        st.builds(AllOf, of=st.lists(inner, max_size=3).map(tuple))
        | st.builds(AnyOf, of=st.lists(inner, max_size=3).map(tuple))
        | st.builds(Not, of=inner)
    ),
    max_leaves=12,
)


@given(trees)
def test_a_tree_is_the_same_after_json(tree: Condition) -> None:
    assert read_json(CONDITION.dump_json(tree)) == tree
    assert read(CONDITION.dump_python(tree)) == tree
    assert len(list(leaves(tree))) <= MOST_CLAUSES


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text)
    except ConditionError as error:
        assert str(error)


def test_operators_of_python_join_conditions() -> None:
    assert AllOf(of=(ADA, SINCE)) == ADA & SINCE
    assert AnyOf(of=(ADA, SINCE)) == ADA | SINCE
    assert Not(of=ADA) == ~ADA
    nested: Condition = ADA
    for _ in range(MOST_CONDITION_DEPTH):
        nested = ~nested
    with pytest.raises(ConditionError, match="nested more than 32 deep"):
        read(nested)
