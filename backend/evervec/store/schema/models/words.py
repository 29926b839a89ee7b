"""The words of rows, for search by words."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, SmallInteger, Text, text
from sqlalchemy.dialects import postgresql as pg

from evervec.store.schema.columns import Model, column, optional


class RowWords(Model, table=True):
    """The words of one row's text, reduced to their stems in the `language` of its dataset, without their positions.

    `length` is how many different ones there are. While `words` is NULL they are due: a trigger on the row's table says so, a
    worker makes them. As with `embeddings` there is no foreign key (docs/decisions/0024).
    """

    __tablename__ = "row_words"
    __table_args__ = (
        CheckConstraint("(words IS NULL) = (length IS NULL)", name="words_counted"),
        Index(
            "row_words_words_idx",
            "words",
            postgresql_using="gin",
            postgresql_where=text("words IS NOT NULL"),
        ),
        Index("row_words_due_idx", "dataset_id", "kind", "row_id", postgresql_where=text("words IS NULL")),
        Index("row_words_dataset_id_idx", "dataset_id"),
    )

    kind: int = column(SmallInteger, primary_key=True, autoincrement=False)
    row_id: int = column(BigInteger, primary_key=True, autoincrement=False)
    dataset_id: UUID = column(pg.UUID(as_uuid=True))
    language: str | None = optional(Text)
    words: str | None = optional(pg.TSVECTOR)
    length: int | None = optional(Integer)
