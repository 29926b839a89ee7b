"""What kinds of sources a dataset is filled from; constraints, routes and the indexing derive from this."""

from enum import StrEnum


class SourceType(StrEnum):
    """The kind of a source: files and folders of this machine, tables of a PostgreSQL database, a table embedded in place."""

    FILES = "files"
    SQL = "sql"
    ATTACHED = "attached"
