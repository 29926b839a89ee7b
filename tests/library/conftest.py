"""The library as a program has it: opened on a database of its own, with a provider that counts what it is asked."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from evervec import SemanticCore
from evervec.store import secrets
from tests.fakes.server import FakeProvider
from tests.library.articles import TABLE, engine


@pytest.fixture
def how(tmp_path: Path) -> dict[str, Any]:
    """Return what is given to `open` beside the address."""
    return {"home": tmp_path, "secret_key": secrets.new_key(), "batch_grace_seconds": 0}


@pytest.fixture
async def local(database_url: str, how: dict[str, Any]) -> AsyncIterator[SemanticCore]:
    """Open a core on an empty database, which has the local model."""
    async with SemanticCore.open(database_url, **how) as core:
        yield core


@pytest.fixture(params=["gemini", "openai"])
async def core(local: SemanticCore, fake: FakeProvider, request: pytest.FixtureRequest) -> SemanticCore:
    """Return a core whose provider has a batch API."""
    await local.add_provider(
        "fake", request.param, model="embedder", api_key="k", base_url=fake.url, price=0.15, use=True
    )
    return local


@pytest.fixture
async def app(database_url: str, psql: Any) -> AsyncIterator[AsyncEngine]:
    """Make the application's table, and open its database as it does."""
    await psql.execute(TABLE)
    opened = engine(database_url)
    yield opened
    await opened.dispose()
