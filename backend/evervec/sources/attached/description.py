"""The description of an attached table: its text, title, fields and datasets, each with its checks; no SQL is run here."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from evervec.domain.attachment import AttachedTable
from evervec.errors import SourceError
from evervec.sources.sql import template as templates
from evervec.sources.sql.description import Described, Identifier, NonBlank, RecordTemplate, parts_of


class AttachmentDescription(Described):
    """What an operator says of a table: where it is, what its text is, and which dataset its rows belong to.

    `text`, `title` and `where` are SQL over its columns; in place of `text`, the values of `columns` are joined, or a
    `template` is filled in with values as that of an SQL source is (`Order {number}: {status}`). Rows belong to `dataset`, or
    each to the one that its `dataset_column` names. A table of another database has the `url` of that, which may hold a
    password and is in no dump, and there the schema `outbox` has our change records.

    With `capture` by a slot of logical decoding (`logical`) nothing is on the table. By `poll`, new and changed rows are found
    by the times in `poll_column`, or without it by `xmin`; `key` names the columns that identify the rows of a view.
    """

    table: str
    project: NonBlank
    dataset: NonBlank | None = None
    dataset_column: Identifier | None = None
    dataset_name: str = "{value}"
    text: NonBlank | None = None
    columns: tuple[Identifier, ...] = ()
    template: RecordTemplate | None = None
    title: NonBlank | None = None
    where: NonBlank | None = None
    fields: tuple[Identifier, ...] = ()
    capture: Literal["triggers", "poll", "logical"] = "triggers"
    poll_column: Identifier | None = None
    key: tuple[Identifier, ...] = ()
    url: SecretStr | None = Field(default=None, exclude=True)
    outbox: Identifier = "evervec_outbox"

    @field_validator("table")
    @classmethod
    def _names_a_table(cls, table: str) -> str:
        parts_of(table)
        return table

    @field_validator("columns", "fields", "key", mode="before")
    @classmethod
    def _from_json(cls, names: object) -> object:
        return tuple(names) if isinstance(names, list) else names

    @field_validator("dataset_name")
    @classmethod
    def _names_datasets_apart(cls, name: str) -> str:
        if templates.fields(name) != ("value",):
            raise ValueError(f"{name[:200]!r} needs {{value}}, and nothing else in braces")
        return name

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if sum([self.text is not None, bool(self.columns), self.template is not None]) != 1:
            raise ValueError("give its text by one of --text, --columns and --template")
        if self.capture != "poll" and (self.poll_column is not None or self.key):
            raise ValueError("--poll-column and --key go with --capture poll")
        if (self.dataset is None) == (self.dataset_column is None):
            raise ValueError(
                "give --dataset for all rows, or --dataset-column with the column that names it, and not both"
            )
        return self

    @property
    def relation(self) -> tuple[str, ...]:
        """Return the table's name, with its schema before it if one is given; unquoted."""
        return parts_of(self.table)

    @property
    def template_lines(self) -> tuple[templates.Line, ...]:
        """Return the lines of the template, each with its parts: the text before a column, and the column's name."""
        return () if self.template is None else templates.lines(self.template)

    def dataset_of(self, tenant: str | None) -> str:
        """Return the name of the dataset of a tenant's rows; None where all rows belong to one dataset."""
        if self.dataset is not None:
            return self.dataset
        return templates.render(self.dataset_name, {"value": tenant})


class Attachment(Described):
    """An attachment as it is stored: what the operator said, and the table that was found.

    `where` is the address of its database without credentials, None for ours.
    """

    description: AttachmentDescription
    table: AttachedTable
    where: str | None = None

    @property
    def is_recorded_here(self) -> bool:
        """Return whether triggers of ours record all changes in our own database."""
        return self.where is None and self.description.capture == "triggers"

    @classmethod
    def load(cls, spec: Mapping[str, Any]) -> Self:
        """Return an attachment from its stored form."""
        return cls.model_validate(spec, strict=False)

    def dump(self) -> dict[str, Any]:
        """Return the form in which it is stored."""
        return self.model_dump(mode="json")


def describe(**values: object) -> AttachmentDescription:
    """Make a description of what an operator gave. Raises `SourceError`, which names the table and the value."""
    try:
        return AttachmentDescription.model_validate(values)
    except ValidationError as error:
        raise SourceError(where=f"Table {values.get('table')}", reason=f"{_sentences(error)}.") from None


def _sentences(error: ValidationError) -> str:
    """Describe the mistakes: each by its field, and what is wrong."""
    found = []
    for one in error.errors(include_url=False):
        field = "--" + str(one["loc"][0]).replace("_", "-") + ": " if one["loc"] else ""
        found.append(field + (str(one["ctx"]["error"]) if one["type"] == "value_error" else one["msg"]))
    return "; ".join(found)
