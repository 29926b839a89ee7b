"""What every stage is handed: opened by the runtime, used here, closed by the runtime."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from evervec.domain.batch import BatchClient
from evervec.domain.protocols import Embedder, Extractor
from evervec.domain.vendors import EXTRACTOR_TYPES, LOCAL
from evervec.embedders.catalog import open_batch_client, open_embedder
from evervec.errors import Refused
from evervec.extractors.catalog import open_extractor
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.settings import Settings
from evervec.store import providers, secrets
from evervec.store.providers import Provider
from evervec.store.session import Database

if TYPE_CHECKING:
    # half a second of imports, which most commands do without
    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.doorbell import Doorbell


INDEX_RUNS = 2
"""So many index runs work at a time in one process."""


class Closeable(Protocol):
    """What every client of a provider can do."""

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...


Client = TypeVar("Client", bound=Closeable)


class Models:
    """Opens the clients of providers once and keeps them; a provider that was changed is opened again."""

    def __init__(self, secret_key: str | None) -> None:
        self._secret_key = secret_key
        self._embedders: dict[UUID, tuple[Provider, Embedder]] = {}
        self._extractors: dict[UUID, tuple[Provider, Extractor]] = {}
        self._batch_clients: dict[UUID, tuple[Provider, BatchClient]] = {}
        self._replaced: list[Closeable] = []

    def embedder(self, provider: Provider) -> Embedder:
        """The provider's embedder."""
        return self._kept(self._embedders, provider, self.open)

    def extractor(self, provider: Provider) -> Extractor:
        """The provider's extractor: its chat model if it has one that extracts, else the local rules."""
        return self._kept(self._extractors, provider, self._open_extractor)

    def batch_client(self, provider: Provider) -> BatchClient:
        """The provider's batch API. Raises `NoBatchError` for one that has none."""
        return self._kept(self._batch_clients, provider, self._open_batch_client)

    def _kept(
        self, clients: dict[UUID, tuple[Provider, Client]], provider: Provider, open_: Callable[[Provider], Client]
    ) -> Client:
        kept = clients.get(provider.id)
        if kept is None or kept[0] != _identity(provider):
            opened = open_(provider)
            self._replaced += [] if kept is None else [kept[1]]
            kept = clients[provider.id] = (_identity(provider), opened)
        return kept[1]

    @cached_property
    def local(self) -> Embedder:
        """The local embedder, which the local extractor reads with whoever else embeds."""
        return open_embedder(LOCAL.type, name=LOCAL.type)

    def open(self, provider: Provider) -> Embedder:
        """A client of its own for a provider, for the caller to close."""
        return open_embedder(
            provider.type,
            base_url=provider.base_url,
            model=provider.model,
            api_key=self._api_key(provider),
            name=provider.name,
            dimensions=provider.dimensions,
        )

    def _open_extractor(self, provider: Provider) -> Extractor:
        chats = provider.chat_model is not None and provider.type in EXTRACTOR_TYPES
        return open_extractor(
            provider.type if chats else LOCAL.type,
            base_url=provider.base_url,
            model=provider.chat_model,
            api_key=self._api_key(provider),
            name=provider.name if chats else LOCAL.type,
            embedder=self.local,
        )

    def _open_batch_client(self, provider: Provider) -> BatchClient:
        return open_batch_client(
            provider.type,
            base_url=provider.base_url,
            model=provider.model,
            chat_model=provider.chat_model,
            api_key=self._api_key(provider),
            name=provider.name,
            dimensions=provider.dimensions,
        )

    async def aclose(self) -> None:
        """Close every client, also those whose provider was changed since; may be called twice."""
        while self._replaced:
            await self._replaced.pop().aclose()
        clients: tuple[dict[UUID, tuple[Provider, Any]], ...] = (
            self._embedders,
            self._extractors,
            self._batch_clients,
        )
        for opened in clients:
            for _, client in opened.values():
                await client.aclose()
            opened.clear()
        await self.local.aclose()

    def _api_key(self, provider: Provider) -> str | None:
        if provider.api_key_encrypted is None:
            return None
        if self._secret_key is None:
            raise Refused(reason=f"Provider {provider.name!r} has an API key: set EVERVEC_SECRET_KEY to read it.")
        return secrets.unseal(self._secret_key, provider.api_key_encrypted)


def _identity(provider: Provider) -> Provider:
    """What a client depends on: neither how the provider fares, nor how chunks are made, nor what it costs."""
    space = replace(provider.space, active=False, template="", chunk_tokens=0, text_tokens=None)
    still = replace(provider, paused_seconds=0.0, pause_code=None, pause_error=None, failures=0)
    return replace(still, space=space, usd_per_million_tokens=None)


@dataclass(frozen=True)
class Resources:
    """The open resources of one process."""

    settings: Settings
    database: Database
    broker: "JetStreamBroker"
    doorbell: "Doorbell"
    models: Models
    mirrors: Mirrors
    indexing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(INDEX_RUNS))
    """Each run that works keeps a connection for its lock."""

    def seal(self, secret: str) -> bytes:
        """A secret as it may be kept in the database. Raises `Refused` without EVERVEC_SECRET_KEY."""
        key = self.settings.secret_key
        if key is None:
            raise Refused(
                reason="API keys and passwords are kept sealed, and EVERVEC_SECRET_KEY is not set. Set it, for example "
                f"to {secrets.new_key()}, here and for every worker."
            )
        return secrets.seal(key.get_secret_value(), secret)

    def unseal(self, sealed: bytes) -> str:
        """A secret out of the database. Raises `Refused` without the EVERVEC_SECRET_KEY that it was sealed with."""
        key = self.settings.secret_key
        if key is None:
            raise Refused(reason="A source has a password: set EVERVEC_SECRET_KEY to read it.")
        return secrets.unseal(key.get_secret_value(), sealed)

    async def provider(self, provider_id: UUID | None = None) -> Provider:
        """The provider asked for, else the active one. Raises `UnknownProviderError`."""
        async with self.database.read() as tx:
            if provider_id is not None:
                return await providers.by_id(tx, provider_id)
            found = await providers.active(tx)
        if found is None:
            raise Refused(reason="No embedding space is active yet. Run `evervec migrate`, or `evervec providers add`.")
        return found
