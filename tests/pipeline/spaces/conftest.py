"""A second model, of another width, that a dataset can be embedded by."""

from collections.abc import AsyncIterator

import pytest

from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider
from tests.pipeline.spaces.spaced import WIDE


@pytest.fixture
async def wide(resources: Resources) -> AsyncIterator[FakeProvider]:
    """Serve a second model, of another width, and add it as provider `wide`."""
    async with FakeProvider(dims=WIDE) as fake:
        await providers.add(
            resources, ProviderDraft("wide", "ollama", base_url=fake.url, model="wider"), activate=False
        )
        yield fake
