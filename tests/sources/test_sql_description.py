"""Descriptions of SQL sources are refused with a word that helps, or become templates, uris and documents that hold."""

import json
import string
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.errors import Refused, SourceError, UnknownTableError
from evervec.sources.sql import loading, records, template
from evervec.sources.sql.description import SourceDescription

YAML = """
name: marketplace
project: shop
url: ${SHOP_DATABASE_URL}
dataset_column: seller_id
dataset_name: seller-{value}
tables:
  orders:
    table: shop.orders
    key: id
    updated_at: updated_at
    template: "Order {number} by {customer}: {status}. {note}"
    title: "Order {number}"
    filter: created_at > now() - interval '90 days'
  reviews:
    key: id
    template: "{text}"
    dataset_column: cabinet
"""
URL = "postgresql://shop:s3cr3t@db/shop"
WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)
COLUMN = WORD.filter(lambda name: not set(name) & set("{}.[]:!\n") and not name.isdecimal())


def described(**changes: Any) -> SourceDescription:
    table = {"key": "id", "template": "{a}", **changes.pop("table", {})}
    return loading.describe(
        {"name": "s", "project": "p", "dataset": "d", "tables": {"orders": table}, **changes}, "s.yaml"
    )


def parsed(text: str) -> SourceDescription:
    return loading.parse(text, "s.yaml", {"SHOP_DATABASE_URL": URL})


def test_a_description_is_read_with_its_defaults() -> None:
    found = parsed(YAML)
    assert found.url is not None
    assert found.url.get_secret_value() == URL
    assert found.tables["orders"].relation == ("shop", "orders")
    assert found.tables["reviews"].relation == ("reviews",)
    assert [table.dataset_column for table in found.tables.values()] == ["seller_id", "cabinet"]
    assert found.tables["orders"].fields == ("number", "customer", "status", "note")
    assert found.dataset_of("7") == "seller-7"


def test_a_dump_makes_the_same_description_and_holds_no_password() -> None:
    found = parsed(YAML)
    dump = json.loads(json.dumps(found.model_dump(mode="json")))
    assert "url" not in dump
    assert "s3cr3t" not in repr(found) + str(dump)
    assert loading.describe(dump, "kept") == found.model_copy(update={"url": None})


def test_nobody_changes_a_description_that_was_checked() -> None:
    found = parsed(YAML)
    with pytest.raises(ValueError, match="frozen"):
        found.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        found.tables["orders"].key = "other"  # type: ignore[misc]


def test_a_file_that_is_not_there_or_not_utf8_or_empty_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no\.yaml: the file can not be read"):
        loading.load(tmp_path / "no.yaml", {})
    with pytest.raises(SourceError, match="can not be read"):
        loading.load(tmp_path, {})
    for content, says in ((b"name: \xff", "not UTF-8"), (b"", "describes no source"), (b"- a", "describes no source")):
        (tmp_path / "s.yaml").write_bytes(content)
        with pytest.raises(SourceError, match=rf"s\.yaml: .*{says}"):
            loading.load(tmp_path / "s.yaml", {})
    (tmp_path / "s.yaml").write_text(YAML)
    assert loading.load(tmp_path / "s.yaml", {"SHOP_DATABASE_URL": URL}).name == "marketplace"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (YAML.replace("table: shop.orders", "table: [shop"), r"s\.yaml: line 10: "),
        (YAML + "project: again\n", r"line 19: 'project' is given twice"),
        (YAML.replace("    title:", "    key: number\n    title:"), r"line 13: 'key' is given twice"),
        (YAML.replace("name: m", "name: !!python/object:os.system m"), "line 2: "),
        (YAML.replace("key: id", "kye: id", 1), r"table 'orders', field 'key' is missing"),
        (YAML.replace("key: id", "kye: id", 1), r"field 'kye' is unknown; known are table, key, updated_at, template"),
        (YAML + "retries: 3\n", r"field 'retries' is unknown; known are name, project, url"),
        (YAML.replace("name: marketplace", "name: 7"), "field 'name' must be text"),
        (YAML.replace("name: marketplace", "name: ' '"), "field 'name': is empty"),
        (YAML.replace("project: shop\n", ""), "field 'project' is missing"),
        (YAML.replace("key: id", "key: ''", 1), "table 'orders', field 'key': '' is not a name"),
        (YAML.replace("shop.orders", "a.b.c"), "table 'orders', field 'table': 'a.b.c' is not a table"),
        (YAML.replace("{note}", "{note"), "table 'orders', field 'template': expected '}'"),
        (YAML.replace("{note}", "{}"), "needs a column's name"),
        (YAML.replace("{note}", "{0}"), "needs a column's name"),
        (YAML.replace("{note}", "{note.a}"), "reaches into a value"),
        (YAML.replace("{note}", "{note[a]}"), "reaches into a value"),
        (YAML.replace("{note}", "{note!r}"), "format or a conversion"),
        (YAML.replace("{note}", "{note:>8}"), "format or a conversion"),
        (YAML.replace('"{text}"', "text"), "table 'reviews', field 'template': 'text' names no column"),
        (YAML.replace("seller-{value}", "seller-{name}"), "field 'dataset_name': 'seller-{name}' needs {value}"),
        (YAML + "dataset: all\n", "exclude each other: table 'orders'"),
        (YAML.replace("dataset_column: seller_id\n", ""), "dataset_column: table 'orders' has neither"),
        (YAML.replace("${SHOP_DATABASE_URL}", "mysql://shop:s3cr3t@db"), "field 'url': is not an address"),
        (YAML.replace("${SHOP_DATABASE_URL}", "7"), "field 'url'"),
        ("name: a\nproject: p\ndataset: d\ntables: {}", "field 'tables'"),
        ("name: a\nproject: p\ndataset: d\ntables: {7: {key: a, template: '{a}'}}", "table 7"),
        ("[" * 100_000, "YAML"),
        ("name: \x01", "YAML"),
    ],
)
def test_a_mistake_is_refused_where_it_is(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says) as refused:
        parsed(text)
    assert isinstance(refused.value, Refused)
    assert "s3cr3t" not in str(refused.value)


def test_a_variable_that_the_environment_lacks_is_named() -> None:
    with pytest.raises(SourceError, match=r"field 'url': the environment has no SHOP_DATABASE_URL"):
        loading.parse(YAML, "s.yaml", {})


def test_a_description_without_url_is_of_evervecs_own_database() -> None:
    assert described().url is None
    assert described().dataset_of(None) == "d"


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("Orders", ("Orders",)),
        ("shop.Order items; --", ("shop", "Order items; --")),
        ('"odd.schema"."a""b"', ("odd.schema", 'a"b')),
        ('a"b', ('a"b',)),
    ],
)
def test_a_tables_name_is_taken_as_it_is_written(written: str, parts: tuple[str, ...]) -> None:
    assert described(table={"table": written}).tables["orders"].relation == parts


@given(WORD, WORD)
def test_any_name_can_be_written_in_double_quotes(schema: str, name: str) -> None:
    written = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
    assert described(table={"table": written}).tables["orders"].relation == (schema, name)


# --- templates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (7, "7"),
        (0.1, "0.1"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.00000000"), "0.00000000"),
        (Decimal("19.90"), "19.90"),
        (datetime(2026, 7, 1, 8, 30, tzinfo=UTC), "2026-07-01T08:30:00+00:00"),
        (date(2026, 7, 1), "2026-07-01"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ('{"a": 1}', '{"a": 1}'),
        ({"ключ": [1, None]}, '{"ключ":[1,null]}'),
        (["red", "blue", None], "red, blue, "),
        ([[1, 2], [3, 4]], "[[1,2],[3,4]]"),
        (b"\x00\xff", "00ff"),
        ("nul\0 and \ud800", "nul and \ufffd"),
    ],
)
def test_a_value_is_shown_the_same_everywhere(value: object, shown: str) -> None:
    assert template.render("<{a}>{b}", {"a": value, "b": "!"}) == f"<{shown}>!"


def test_a_line_whose_fields_are_all_empty_is_left_out() -> None:
    text = "{{Order}} {a}\nNote: {b}, {c}\n\nEnd"
    assert template.render(text, {"a": 1, "b": None, "c": "x"}) == "{Order} 1\nNote: , x\n\nEnd"
    assert template.render(text, {"a": 1, "b": " ", "c": ""}) == "{Order} 1\n\nEnd"


def test_a_record_with_nothing_in_its_fields_has_no_text() -> None:
    assert template.render("Review:\n{a} {b}", {"a": None, "b": "\u200b\n"}) == ""


@given(st.lists(st.tuples(st.text(string.printable, max_size=5), COLUMN), min_size=1, max_size=5), st.data())
def test_a_template_of_any_columns_agrees_with_format(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    columns = {name for _, name in parts}
    record = {name: data.draw(st.text("ab{}\n ", max_size=5).map(lambda text: f"{text}."), name) for name in columns}
    text = "".join(f"{literal.replace('{', '{{').replace('}', '}}')}{{{name}}}" for literal, name in parts)
    assert set(template.fields(text)) == columns
    assert template.render(text, record) == text.format_map(record)


@given(st.text("{}ab!:[.]0 \n", max_size=12))
def test_any_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        names = template.fields(text)
    except ValueError:
        return
    assert template.render(text, dict.fromkeys(names, "x")).count("x") >= len(names)


# --- records --------------------------------------------------------------------------------------------------


@given(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.integers() | st.text(st.characters(codec="utf-8")),
)
def test_a_uri_leads_back_to_its_record(table: str, key: int | str) -> None:
    uri = records.uri_of(table, key)
    assert uri.isascii()
    assert records.key_of(uri) == (table, str(key))


def test_uris_are_plain_where_keys_are() -> None:
    assert records.uri_of("orders", 17) == "orders/17"
    assert records.uri_of("reviews", "a/b") == "reviews/a%2Fb"
    assert [records.owns(described(), uri) for uri in ("orders/17", "other/17", "orders", "orders/a/b")] == [
        True,
        False,
        False,
        False,
    ]


def test_a_record_becomes_a_document_and_a_blank_one_has_no_text() -> None:
    found = described(table={"template": "{a}", "title": "Order\n{a}"})
    moment = datetime(2026, 7, 1, tzinfo=UTC)
    document = records.document_of(found, "orders", 17, moment, {"a": "x"})
    assert (document.uri, document.title, document.text, document.format) == ("orders/17", "Order x", "x", "plain")
    assert document.stamp == records.stamp_of(found, "orders", moment)
    blank = records.document_of(found, "orders", 17, None, {"a": None})
    assert (blank.title, blank.text, blank.stamp) == ("orders 17", "", None)


def test_another_template_is_another_stamp() -> None:
    moment = datetime(2026, 7, 1, tzinfo=UTC)
    stamps = {
        records.stamp_of(described(table=table), "orders", moment)
        for table in ({"template": "{a}"}, {"template": "{b}"}, {"template": "{a}", "title": "{a}"})
    }
    assert len(stamps) == 3


def test_named_ids_become_what_the_key_is_each_once() -> None:
    both = described(tables={name: {"key": "id", "template": "{a}"} for name in ("orders", "reviews", "files")})
    types = {"orders": "integer", "reviews": "text", "files": "uuid"}
    changed = {"orders": [17, "17", -3, "-3", 1 << 62], "reviews": ["a/b", "17"], "files": [str(UUID(int=1)).upper()]}
    assert records.check_ids(both, changed, types) == {  # type: ignore[arg-type]
        "orders": [17, -3, 1 << 62],
        "reviews": ["a/b", "17"],
        "files": [str(UUID(int=1))],
    }


@pytest.mark.parametrize(
    ("key_type", "value"),
    [("integer", value) for value in ("abc", "", "-", "1.5", "٣", "1_0", " 1", True, 1.0, None, 1 << 63, "9" * 5_000)]
    + [("text", value) for value in (17, None, "a\0b", "\ud800", ["a"])]
    + [("uuid", value) for value in ("17", 17, None)],
)
def test_an_id_of_a_wrong_type_is_refused_by_table_and_value(key_type: Any, value: Any) -> None:
    with pytest.raises(Refused, match=f"table 'orders': .* is not an id, its keys are of type {key_type}") as refused:
        records.check_ids(described(), {"orders": [value]}, {"orders": key_type})
    assert repr(value)[:80] in str(refused.value)


def test_an_unknown_table_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownTableError, match=r"'ordres'.*Known tables: orders"):
        records.check_ids(described(), {"ordres": [1]}, {"orders": "integer"})


def test_a_hundred_thousand_ids_are_fine() -> None:
    found = records.check_ids(described(), {"orders": list(range(100_000))}, {"orders": "integer"})
    assert found["orders"] == list(range(100_000))
