"""The application's table, in a schema of its own. Nothing here knows of Evervec."""

from sqlalchemy import CheckConstraint, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

SCHEMA = "newsroom"

metadata = MetaData(schema=SCHEMA)


class Model(SQLModel, registry=registry(metadata=metadata)):
    """The base of the application's tables."""


class ArticleText(SQLModel):
    """What an author writes."""

    title: str
    body: str
    section: str = "news"


class Article(Model, ArticleText, table=True):
    """An article, as it is stored."""

    __tablename__ = "articles"
    __table_args__ = (CheckConstraint("title <> ''", name="articles_title_check"),)

    id: int | None = Field(default=None, primary_key=True)
