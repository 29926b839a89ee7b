"""The application's own migrations: `alembic_version` is in its own schema, and Evervec's tables are none of its business."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine


def engine_url(url: str) -> str:
    """Return an address as SQLAlchemy takes it, with asyncpg as its driver."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


async def migrate(url: str) -> None:
    """Bring the application's tables up to date."""
    engine = create_async_engine(engine_url(url))
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)
    await engine.dispose()


def configured(connection: Connection) -> Config:
    """Return the configuration of Alembic for a connection."""
    config = Config(Path(__file__).with_name("alembic.ini"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    command.upgrade(configured(connection), "head")
