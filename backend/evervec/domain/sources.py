"""What kinds of sources a dataset is filled from; constraints, routes and the indexing derive from this."""

from enum import StrEnum


class SourceType(StrEnum):
    """The kind of a source: files and folders of this machine, or tables of a PostgreSQL database."""

    FILES = "files"
    SQL = "sql"
