"""Expressions of SQLAlchemy over a class become SQL over the columns of one row, or are refused with the reason."""

import enum
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Text, bindparam, case, cast, exists, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel, col

from evervec.errors import Refused
from evervec.store.callers.classes import column_names, table_name
from evervec.store.callers.expressions import sql_of


class Mood(enum.Enum):
    """How somebody feels."""

    SAD = 1
    GLAD = 2


class Essay(SQLModel, table=True):
    """A table of somebody else, with columns of many types."""

    __table_args__ = {"schema": "odd.place"}

    id: int | None = Field(default=None, primary_key=True)
    title: str
    body: str | None
    stars: int = 0
    at: datetime
    writer: UUID
    mood: Mood
    odd: str = Field(sa_column=Column('Odd "%1": x', Text))
    data: Any = Field(sa_column=Column(JSONB))


class Stranger(SQLModel, table=True):
    """Another table."""

    id: int | None = Field(default=None, primary_key=True)


WRITER = UUID("6f1b0c1e-0000-4000-8000-000000000001")
WRITTEN = {
    "title": Essay.title,
    "title || '\n' || body": Essay.title + "\n" + col(Essay.body),
    "title || 'it''s 100% a\\b :x'": Essay.title + "it's 100% a\\b :x",
    "coalesce(body, '')": func.coalesce(Essay.body, ""),
    "title || 'as it is'": text("title || 'as it is'"),
    "body IS NOT NULL AND stars >= 3": col(Essay.body).is_not(None) & (col(Essay.stars) >= 3),
    "mood = 'SAD'": Essay.mood == Mood.SAD,
    f"writer = '{WRITER}'": Essay.writer == WRITER,
    "at > '2024-05-01T12:00:00+00:00'": col(Essay.at) > datetime(2024, 5, 1, 12, tzinfo=UTC),
    "title IN ('a', 'b')": col(Essay.title).in_(["a", "b"]),
    "CASE WHEN (stars = 1) THEN 'one' ELSE title END": case((col(Essay.stars) == 1, "one"), else_=Essay.title),
    "CAST(stars AS TEXT)": cast(Essay.stars, Text),
    '"Odd ""%1"": x" || \'y\'': col(Essay.odd) + "y",
    "(data['a']) ->> 'b'": col(Essay.data)["a"]["b"].astext,
    "data #>> '{a, b}'": col(Essay.data)[("a", "b")].astext,
}


@pytest.mark.parametrize(("sql", "expression"), WRITTEN.items(), ids=WRITTEN.keys())
def test_an_expression_is_sql_over_bare_columns_with_its_values_in_it(sql: str, expression: object) -> None:
    assert sql_of(Essay, "text", expression) == sql


REFUSED = {
    "another table": (col(Stranger.id) + 1, r"text reads stranger\.id, which is no column of \"odd\.place\"\.essay"),
    "an alias": (aliased(Essay).title, "which is no column of"),
    "a subquery": (select(Stranger.id).scalar_subquery(), "has a subquery"),
    "a hidden subquery": (exists().where(col(Stranger.id) == 1), "has a subquery"),
    "a parameter": (col(Essay.title) + bindparam("word"), "parameter :word without a value"),
    "a parameter in a text": (text("title || :word"), "parameter :word without a value"),
    "a value without a literal": (func.concat(Essay.title, bindparam("x", object())), "can not be written as SQL"),
    "no expression": (7, "text is 7"),
}


@pytest.mark.parametrize(("expression", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_expression_over_one_row_is_refused(expression: object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        sql_of(Essay, "text", expression)


def test_names_of_tables_and_columns_come_from_the_class() -> None:
    assert table_name(Essay) == '"odd.place".essay'
    assert table_name(Stranger) == "stranger"
    assert table_name("as.given") == "as.given"
    assert column_names(Essay, "fields", [Essay.odd, "title"]) == ('Odd "%1": x', "title")
    with pytest.raises(Refused, match="which is no column of"):
        column_names(Essay, "fields", [Stranger.id])
    with pytest.raises(Refused, match="which is no column of"):
        column_names(Essay, "fields", [Essay.title + "x"])
    with pytest.raises(Refused, match="Give a list of columns"):
        column_names(Essay, "fields", "title,body")
    with pytest.raises(Refused, match="is no mapped class"):
        table_name(Mood)
    with pytest.raises(Refused, match="Give the mapped class"):
        sql_of("essay", "text", Essay.title)
