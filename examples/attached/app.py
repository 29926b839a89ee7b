"""An application with FastAPI. It writes its table as it always did, and its readers find by meaning."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from evervec import SemanticCore
from examples.attached.articles import Article, ArticleText
from examples.attached.migrating import engine_url

router = APIRouter()


def create(url: str) -> FastAPI:
    """Make the application for a database by its address."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = create_async_engine(engine_url(url))
        async with SemanticCore.open(url) as app.state.core:
            # every start says the same, and changes nothing; a deployment may do it instead
            await app.state.core.attach(
                Article,
                text=Article.title + "\n\n" + Article.body,
                title=Article.title,
                fields=[Article.section],
                dataset="newsroom/articles",
            )
            yield
        await app.state.engine.dispose()

    app = FastAPI(title="Newsroom", lifespan=lifespan)
    app.include_router(router)
    return app


async def opened(request: Request) -> AsyncIterator[AsyncSession]:
    """Open the session of a request."""
    async with AsyncSession(request.app.state.engine) as session:
        yield session


Session = Annotated[AsyncSession, Depends(opened)]


class Found(SQLModel):
    """An article that was found, and how near it is to the question: 1 is the same."""

    score: float
    article: Article


@router.get("/search")
async def search(q: str, request: Request, session: Session, k: int = 5) -> list[Found]:
    """Return the articles nearest in meaning to a question."""
    answer = await request.app.state.core.search(q, k, of=Article, session=session)
    return [Found(score=hit.score, article=hit.row) for hit in answer]


@router.post("/articles", status_code=201)
async def write(texts: list[ArticleText], session: Session) -> list[int | None]:
    """Write some articles, all of them or none."""
    articles = [Article.model_validate(text) for text in texts]
    session.add_all(articles)
    try:
        await session.flush()
    except IntegrityError as error:
        raise HTTPException(422, "An article needs a title. Nothing was written.") from error
    ids = [article.id for article in articles]
    await session.commit()
    return ids


@router.put("/articles/{article_id}")
async def edit(article_id: int, text: ArticleText, session: Session) -> None:
    """Give an article another text."""
    (await _existing(session, article_id)).sqlmodel_update(text)
    await session.commit()


@router.delete("/articles/{article_id}")
async def remove(article_id: int, session: Session) -> None:
    """Remove an article."""
    await session.delete(await _existing(session, article_id))
    await session.commit()


async def _existing(session: AsyncSession, article_id: int) -> Article:
    found = await session.get(Article, article_id)
    if found is None:
        raise HTTPException(404, f"There is no article {article_id}.")
    return found
