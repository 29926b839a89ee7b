"""Resources that can seal the keys of providers."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from pydantic import SecretStr

from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from evervec.store import secrets


@pytest.fixture
async def keyed(bare: Resources, settings: Settings) -> AsyncIterator[Resources]:
    """Open resources that can seal keys."""
    key = secrets.new_key()
    clients = ProviderClients(key)
    yield replace(bare, settings=settings.model_copy(update={"secret_key": SecretStr(key)}), clients=clients)
    await clients.aclose()
