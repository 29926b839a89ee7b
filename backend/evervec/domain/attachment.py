"""A table of somebody else that is embedded in place: what is known of it, and the keys of its rows; no SQL is run here."""

from dataclasses import dataclass

KeyValue = str | int | bool
Key = tuple[KeyValue, ...]
"""The values of a row's key columns, in their order, as JSON holds them: integers and booleans as such, all else as text."""


@dataclass(frozen=True)
class AttachedColumn:
    """A column: its name, its type without length and domain (`bigint`, `text`), and its number in the table.

    The number stays when the column is renamed.
    """

    name: str
    type: str
    number: int


@dataclass(frozen=True)
class AttachedTable:
    """A table as it was when it was attached; the expressions are SQL over its columns, as the operator wrote them.

    `reads` are the columns that text, title, condition, fields and dataset are made of. `oid` finds the table again after
    it was renamed or moved; after a restore its triggers and its name do.
    """

    oid: int
    schema: str
    name: str
    key: tuple[AttachedColumn, ...]
    reads: tuple[AttachedColumn, ...]
    text: str
    title: str | None = None
    where: str | None = None
    fields: tuple[str, ...] = ()
    dataset_column: str | None = None

    @property
    def label(self) -> str:
        """Return its name for people: `public.articles`."""
        return f"{self.schema}.{self.name}"
