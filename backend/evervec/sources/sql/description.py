"""The description of an SQL source: its tables, keys, templates and datasets, each with its checks; no SQL here."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evervec.domain.text import is_blank
from evervec.sources.sql import template as templates

LONGEST_NAME: Final = 63
"""Bytes: PostgreSQL truncates longer names silently."""

_PART: Final = r'"(?:[^"]|"")+"|[^".][^.]*'
_RELATION: Final = re.compile(rf"({_PART})(?:\.({_PART}))?", re.DOTALL)


def _given(text: str) -> str:
    if is_blank(text):
        raise ValueError("is empty")
    return text


def _identifier(name: str) -> str:
    if (
        not name
        or "\0" in name
        or len(name.encode("utf-8", "replace")) > LONGEST_NAME
        or re.search("[\ud800-\udfff]", name)
    ):
        raise ValueError(f"{name[:80]!r} is not a name for PostgreSQL: give 1 to {LONGEST_NAME} bytes of text")
    return name


def parts_of(written: str) -> tuple[str, ...]:
    """Split `shop.orders` into its parts, as they are written; a part with a dot in it needs double quotes."""
    match = _RELATION.fullmatch(written)
    if match is None:
        raise ValueError(f'{written[:200]!r} is not a table: write orders, shop.orders or shop."odd.name"')
    parts = (part for part in match.groups() if part is not None)
    return tuple(_identifier(part[1:-1].replace('""', '"') if part.startswith('"') else part) for part in parts)


def _usable(template: str) -> str:
    if not templates.fields(template):
        raise ValueError(f"{template[:200]!r} names no column: every record would have the same text")
    return template


NonBlank = Annotated[str, AfterValidator(_given)]
Identifier = Annotated[str, AfterValidator(_identifier)]
RecordTemplate = Annotated[str, AfterValidator(_usable)]


class Described(BaseModel):
    """The base of what an operator describes: frozen, strict, and no value of it is repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class TableDescription(Described):
    """One table: where it is, what identifies its rows, and how a row becomes text.

    `table` may name a schema; `filter` is a condition in SQL, written by the operator and never by a reader.
    """

    table: str | None = None
    key: Identifier
    updated_at: Identifier | None = None
    template: RecordTemplate
    title: RecordTemplate | None = None
    filter: NonBlank | None = None
    dataset_column: Identifier | None = None

    @field_validator("table")
    @classmethod
    def _names_a_table(cls, table: str | None) -> str | None:
        if table is not None:
            parts_of(table)
        return table

    @property
    def relation(self) -> tuple[str, ...]:
        """Return the table's name, with its schema before it if one is given; unquoted."""
        return parts_of(self.table or "")

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the columns that its templates name, each once."""
        return tuple(dict.fromkeys(templates.fields(self.template) + templates.fields(self.title or "")))


class SourceDescription(Described):
    """A source: its tables, and the dataset of their rows; either `dataset` for all of them, or `dataset_column`.

    The URL holds a password, so it is in no dump: the code that stores a description encrypts the URL separately.
    """

    name: NonBlank
    project: NonBlank
    url: SecretStr | None = Field(default=None, exclude=True)
    dataset: NonBlank | None = None
    dataset_column: Identifier | None = None
    dataset_name: str = "{value}"
    tables: Mapping[NonBlank, TableDescription] = Field(min_length=1)

    @field_validator("url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuse what is for another server; the store reads the address, and says what else is wrong with it."""
        scheme = "" if url is None else url.get_secret_value().partition("://")[0]
        if url is not None and not scheme.startswith("postgres") and "=" not in scheme:
            raise ValueError("is not an address like postgresql://user:password@127.0.0.1:5432/shop")
        return url

    @field_validator("dataset_name")
    @classmethod
    def _names_datasets_apart(cls, name: str) -> str:
        if templates.fields(name) != ("value",):
            raise ValueError(f"{name[:200]!r} needs {{value}}, and nothing else in braces")
        return name

    @field_validator("tables")
    @classmethod
    def _with_defaults(
        cls, tables: Mapping[str, TableDescription], info: ValidationInfo
    ) -> Mapping[str, TableDescription]:
        column = info.data.get("dataset_column")
        filled = {
            name: table.model_copy(
                update={"table": table.table or name, "dataset_column": table.dataset_column or column}
            )
            for name, table in tables.items()
        }
        for table in filled.values():
            parts_of(table.table or "")  # a name that is also the table's must be a valid one
        return filled

    @model_validator(mode="after")
    def _belongs_somewhere(self) -> Self:
        split = [name for name, table in self.tables.items() if table.dataset_column is not None]
        if self.dataset is not None and split:
            raise ValueError(f"dataset and dataset_column exclude each other: table {split[0]!r} has a dataset_column")
        if self.dataset is None and len(split) < len(self.tables):
            missing = next(name for name in self.tables if name not in split)
            raise ValueError(f"give dataset, or dataset_column: table {missing!r} has neither")
        return self

    def dataset_of(self, tenant: str | None) -> str:
        """Return the name of the dataset of a tenant's rows; None where all rows belong to one dataset."""
        if self.dataset is not None:
            return self.dataset
        return templates.render(self.dataset_name, {"value": tenant})
