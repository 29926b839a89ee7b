"""The clients of providers: opened once per provider, kept, and opened again when the provider was changed."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from evervec.domain.batch import BatchClient
from evervec.domain.protocols import Embedder, Extractor
from evervec.domain.vendors import LOCAL
from evervec.embedders.catalog import open_batch_client, open_embedder
from evervec.errors import Refused
from evervec.extractors.catalog import open_extractor
from evervec.store import secrets
from evervec.store.breakers import Breaker
from evervec.store.providers import Provider


class Closeable(Protocol):
    """A client of a provider, which can be closed."""

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...


Client = TypeVar("Client", bound=Closeable)


class ProviderClients:
    """The open clients of all providers, each opened when it is first used."""

    def __init__(self, secret_key: str | None) -> None:
        self._secret_key = secret_key
        self._embedders: dict[UUID, tuple[Provider, Embedder]] = {}
        self._extractors: dict[UUID, tuple[Provider, Extractor]] = {}
        self._batch_clients: dict[UUID, tuple[Provider, BatchClient]] = {}
        self._replaced: list[Closeable] = []

    def embedder(self, provider: Provider) -> Embedder:
        """Return the provider's embedder."""
        return self._open_once(self._embedders, provider, self.open)

    def extractor(self, provider: Provider) -> Extractor:
        """Return the provider's extractor: its chat model if it has one that extracts, else the local rules."""
        return self._open_once(self._extractors, provider, self._open_extractor)

    def batch_client(self, provider: Provider) -> BatchClient:
        """Return the provider's batch API. Raises `NoBatchError` for a provider without one."""
        return self._open_once(self._batch_clients, provider, self._open_batch_client)

    def _open_once(
        self, clients: dict[UUID, tuple[Provider, Client]], provider: Provider, open_: Callable[[Provider], Client]
    ) -> Client:
        present = clients.get(provider.id)
        connection = _connection_part(provider)
        if present is None or present[0] != connection:
            opened = open_(provider)
            self._replaced += [] if present is None else [present[1]]
            present = clients[provider.id] = (connection, opened)
        return present[1]

    @cached_property
    def local(self) -> Embedder:
        """Return the local embedder, which the local extractor uses whichever provider embeds."""
        return open_embedder(LOCAL.type, name=LOCAL.type)

    def open(self, provider: Provider) -> Embedder:
        """Open another embedder for a provider, for the caller to close."""
        return open_embedder(
            provider.type,
            base_url=provider.base_url,
            model=provider.model,
            api_key=self._api_key(provider),
            name=provider.name,
            dimensions=provider.dimensions,
            encoder=provider.encoder,
            refused_options=provider.refused_options,
            request_texts=provider.request_texts,
        )

    def _open_extractor(self, provider: Provider) -> Extractor:
        return open_extractor(
            provider.type if provider.chats else LOCAL.type,
            base_url=provider.base_url,
            model=provider.chat_model,
            api_key=self._api_key(provider),
            name=provider.name if provider.chats else LOCAL.type,
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
            encoder=provider.encoder,
        )

    async def aclose(self) -> None:
        """Close every client, also those that were replaced because their provider changed; may be called twice."""
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


NO_PART: Final[dict[str, Any]] = {"listed_usd": None, "limited": False, "tokens_per_minute": None}
"""Fields of a provider that say what may be sent and what it costs."""


def _connection_part(provider: Provider) -> Provider:
    """Return a provider with the fields that no client depends on cleared: its breaker, its chunk settings, its price."""
    space = replace(provider.space, active=False, template="", chunk_tokens=0, text_tokens=None)
    return replace(provider, space=space, breaker=Breaker(), usd_per_million_tokens=None, **NO_PART)
