"""What a caller of `SemanticCore.attach` says of a table becomes the description that every entry point gives."""

from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from evervec.sources.attached.description import AttachmentDescription, describe
from evervec.store.callers.classes import column_name, column_names, table_name
from evervec.store.callers.expressions import sql_of


def described(
    table: object,
    *,
    project: str,
    dataset: str | None,
    dataset_name: str,
    expressions: Mapping[str, object],
    columns: Sequence[object],
    template: str | None,
    fields: Sequence[object],
    dataset_column: object,
    url: str | None,
    more: Mapping[str, object],
) -> AttachmentDescription:
    """Make a description. Raises `Refused` for an expression that is none over one row, `SourceError` for other mistakes."""
    if dataset is not None and "/" in dataset:
        project, _, dataset = dataset.partition("/")
    return describe(
        table=table_name(table),
        project=project,
        dataset=dataset,
        dataset_column=None if dataset_column is None else column_name(table, "dataset_column", dataset_column),
        dataset_name=dataset_name,
        template=template,
        columns=column_names(table, "columns", columns),
        fields=column_names(table, "fields", fields),
        url=None if url is None else SecretStr(url),
        **{option: sql_of(table, option, value) for option, value in expressions.items()},
        **more,
    )
