"""What can be embedded: one declaration per kind. Triggers, claim, search and status are written once, from these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Embeddable:
    """A table whose rows are embedded.

    `text` is the SQL expression of the vector text over the columns of alias `r`; a NULL or blank text means there
    is nothing to embed. `columns` are the columns that `text` reads: only their updates reopen a row. `place` is the
    SQL record that says where a row is, as `store/embeddings/hits.py` reads it, NULL for what is no part of anything;
    `whole` is the table of the documents that these rows are parts of; `space` the column that says for which space a row
    was made, 0 for every one of its dataset.
    """

    kind: int
    name: str
    table: str
    text: str
    columns: tuple[str, ...]
    key: str = "id"
    dataset: str = "dataset_id"
    place: str = "NULL::record"
    whole: str | None = None
    space: str | None = None


MESSAGE = Embeddable(
    1,
    "message",
    "messages",
    "r.content",
    ("content",),
    place="(r.chat, r.external_id, r.author, r.sent_at)",
)
TOPIC = Embeddable(
    2, "topic", "topics", "concat_ws(E'\\n', r.name, nullif(r.description, ''))", ("name", "description")
)
ATOM = Embeddable(3, "atom", "atoms", "r.content", ("content",))
CHUNK = Embeddable(
    4,
    "chunk",
    "chunks",
    "r.vector_text",
    ("vector_text",),
    place="(SELECT (d.uri, r.heading, r.line_start, r.line_end, d.key, d.fields, d.metadata) FROM documents d WHERE d.id = r.document_id)",
    whole="documents",
    space="space_id",
)

EMBEDDABLES = (MESSAGE, TOPIC, ATOM, CHUNK)
BY_NAME = {embeddable.name: embeddable for embeddable in EMBEDDABLES}
BY_KIND = {embeddable.kind: embeddable for embeddable in EMBEDDABLES}
PURGED_TABLES = tuple(table for one in reversed(EMBEDDABLES) for table in (one.table, one.whole) if table)
"""Tables whose rows are removed with their dataset, those that depend on others first."""
