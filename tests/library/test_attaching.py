"""A mapped class is attached as a table's name is, and a search with a session returns its objects."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, Numeric, Text, event, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from evervec import SemanticCore
from evervec.errors import Refused, SourceError
from tests.conftest import Servers
from tests.library.articles import TEXT, Article, attached, engine, settled
from tests.pipeline.attached.elsewhere import elsewhere


class OddLine(SQLModel, table=True):
    """A table with a name, a key and columns that need care."""

    __tablename__ = 'Li:n"es'
    __table_args__ = {"schema": "My%Shop"}

    shop: UUID = Field(primary_key=True)
    at: datetime = Field(primary_key=True)
    number: Decimal = Field(sa_column=Column("No:1 %s", Numeric, primary_key=True))
    said: str = Field(sa_column=Column("select", Text))


ODD = """
CREATE SCHEMA "My%Shop";
CREATE TABLE "My%Shop"."Li:n""es" (
    shop uuid, at timestamp, "No:1 %s" numeric, "select" text, PRIMARY KEY (shop, at, "No:1 %s")
);
INSERT INTO "My%Shop"."Li:n""es" VALUES
    ('6f1b0c1e-0000-4000-8000-000000000001', '2024-05-01 12:00:00.5', 1.50, 'birds sing'),
    ('6f1b0c1e-0000-4000-8000-000000000001', '2024-05-01 12:00:00.5', 2, 'cold soup')
"""


async def test_a_class_is_attached_searched_as_objects_and_detached(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    planned = await local.attach(Article, text=TEXT, dataset="app/articles", dry_run=True)
    assert (planned.state, planned.table, await local.attachments()) == ("planned", "public.articles", [])
    done = await attached(local, title=Article.title, where=Article.status == "live", fields=[Article.status])
    assert (done.state, done.project, done.dataset, done.key) == ("attached", "app", "articles", ["id"])
    assert sorted(done.reads) == ["body", "status", "title"]
    (report,) = await local.attachments("app")
    assert (report.documents, report.state) == (2, "following")

    await local.ingest(_document("birds sing, but this is no article"))
    async with AsyncSession(app) as session:
        answer = await local.search("a bird's song", of=Article, session=session)
        assert [hit.row.title for hit in answer] == ["Birds", "Soup"]
        assert isinstance(answer[0].row, Article)
        assert (answer[0].fields, answer.hits[0].row in session) == ({"status": "live"}, True)
    assert [hit.key for hit in await local.search("a bird's song", of=Article)] == [[1], [2]]

    again = await local.attach(
        Article,
        text=TEXT,
        title=Article.title,
        where=Article.status == "live",
        fields=["status"],
        dataset="app/articles",
    )
    assert again.state == "unchanged"
    with pytest.raises(Refused, match="Give --replace"):
        await local.attach(Article, text=Article.title, dataset="app/articles")
    gone = await local.detach(Article)
    assert (gone.documents, await local.attachments()) == (2, [])
    with pytest.raises(Refused, match="No table 'articles' is attached"):
        await local.detach(Article)
    assert not await psql.fetch("SELECT 1 FROM pg_trigger WHERE tgrelid = 'public.articles'::regclass")


def _document(said: str) -> Any:
    from evervec import Document

    return Document.from_text("mine", said)


async def test_a_table_is_attached_by_its_name_and_found_by_the_name_that_it_has_now(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    done = await local.attach(
        "public.articles", columns=["title", "body"], dataset_column="status", dataset_name="of-{value}", project="app"
    )
    await settled(local, done)
    assert {hit.dataset for hit in await local.search("birds", of=Article)} == {"of-live", "of-draft"}
    await psql.execute("CREATE SCHEMA shop; CREATE TABLE shop.articles (id int PRIMARY KEY, title text)")
    await local.attach("shop.articles", text="title", dataset="app/shop")
    with pytest.raises(
        Refused, match=r"2 attached tables are called 'articles': public\.articles, shop\.articles\. Name"
    ):
        await local.detach("articles")
    assert (await local.detach("shop.articles")).documents == 0
    await psql.execute(
        "ALTER TABLE public.articles RENAME TO essays; CREATE SCHEMA old; ALTER TABLE essays SET SCHEMA old"
    )
    assert (await local.detach("old.essays", dry_run=True)).table == "public.articles"
    assert (await local.detach('"old"."essays"', dry_run=True)).documents == 3
    assert (await local.detach("essays")).documents == 3


async def test_objects_are_loaded_by_one_query_a_class_and_what_the_session_does_not_see_is_left_out(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    await attached(local)
    asked: list[str] = []
    event.listen(app.sync_engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    async with AsyncSession(app) as session:
        first = (await session.get(Article, 1), len(asked))
        answer = await local.search("birds", of=[Article], session=session)
        assert (len(answer.hits), len(asked), answer[0].row) == (3, first[1] + 1, first[0])
        await psql.execute("DELETE FROM public.articles WHERE id = 1")
        answer = await local.search("birds", of=Article, session=session)
        # this session has deleted it as well, though nobody else sees that yet
        await session.delete(await session.get(Article, 2))
        answer = await local.search("birds", of=Article, session=session)
        assert [hit.row.id for hit in answer] == [3]


async def test_keys_of_any_type_and_names_that_need_quotes_find_their_objects(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    await psql.execute(ODD)
    done = await local.attach(OddLine, text=OddLine.said, fields=[OddLine.number], dataset="app/lines")
    await settled(local, done)
    async with AsyncSession(app) as session:
        answer = await local.search("a bird's song", of=OddLine, session=session)
    assert [(hit.row.said, hit.row.number) for hit in answer] == [
        ("birds sing", Decimal("1.50")),
        ("cold soup", Decimal(2)),
    ]
    assert (await local.detach(OddLine)).documents == 2


class FarModel(SQLModel, registry=registry()):
    """The base of the classes of another database."""


class FarArticle(FarModel, table=True):
    """A table of another database."""

    __tablename__ = "articles"

    id: int = Field(primary_key=True)
    title: str
    body: str


async def test_a_class_of_another_database_is_attached_and_its_session_returns_its_objects(
    local: SemanticCore, servers: Servers
) -> None:
    async with elsewhere(servers, 3) as there:
        done = await local.attach(
            FarArticle, text=FarArticle.body, dataset="app/far", url=there.url, outbox="their_outbox"
        )
        await settled(local, done)
        app = engine(there.url)
        async with AsyncSession(app) as session:
            answer = await local.search("the body of number 2", of=FarArticle, session=session)
            assert sorted(hit.row.title for hit in answer) == ["Title 1", "Title 2", "Title 3"]
        await app.dispose()
        assert "schema their_outbox" not in await there.objects()
        assert await there.psql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'their_outbox'") == 1
        assert (await local.detach(FarArticle)).documents == 3
        assert await there.objects() == []
    with pytest.raises(SourceError, match="--outbx: Extra inputs are not permitted"):
        await local.attach(FarArticle, text=FarArticle.body, dataset="app/far", outbx="x")


async def test_rows_that_a_policy_hides_from_the_session_are_left_out(
    local: SemanticCore, app: AsyncEngine, psql: Any
) -> None:
    await attached(local)
    await psql.execute(
        "DROP ROLE IF EXISTS reader_of_live; CREATE ROLE reader_of_live; GRANT SELECT ON public.articles TO reader_of_live;"
        "ALTER TABLE public.articles ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY live ON public.articles USING (status = 'live')"
    )
    try:
        async with AsyncSession(app) as session:
            await (await session.connection()).execute(text("SET LOCAL ROLE reader_of_live"))
            answer = await local.search("nobody sees it", of=Article, session=session)
            assert {hit.row.title for hit in answer} == {"Birds", "Soup"}
    finally:
        await psql.execute("DROP OWNED BY reader_of_live; DROP ROLE reader_of_live")


class Unattached(SQLModel, table=True):
    """A table that is not attached."""

    id: UUID = Field(default_factory=uuid4, primary_key=True)


async def test_what_can_not_be_searched_as_objects_says_why(local: SemanticCore, app: AsyncEngine) -> None:
    await attached(local)
    async with AsyncSession(app) as session:
        with pytest.raises(Refused, match="say which, for example of=Article"):
            await local.search("birds", of=None, session=session)
        with pytest.raises(Refused, match="No table 'unattached' is attached"):
            await local.search("birds", of=Unattached, session=session)
        with pytest.raises(Refused, match="is no mapped class"):
            await local.search("birds", of="articles", session=session)
    with pytest.raises(Refused, match="Give an AsyncSession or a Session"):
        await local.search("birds", of=Article, session=app)


async def test_mistakes_in_python_are_named(local: SemanticCore, app: AsyncEngine) -> None:
    with pytest.raises(SourceError, match="its columns are id, title"):
        await local.attach("articles", text="titel", dataset="app/articles")
    with pytest.raises(SourceError, match="one of --text, --columns and --template"):
        await local.attach(Article, text=Article.title, columns=[Article.title], dataset="app/articles")
    with pytest.raises(Refused, match=r"reads unattached\.id"):
        await local.attach(Article, text=col(Unattached.id), dataset="app/articles")
    assert await local.attachments() == []
