"""The open resources of a process: opened and closed by the runtime, used by every stage of the pipeline."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from evervec.domain.endpoint import endpoint_digest
from evervec.domain.naming import slug
from evervec.domain.spending import Tally
from evervec.errors import NoProviderError, Refused, SpaceMismatchError
from evervec.pipeline.clients import ProviderClients
from evervec.pipeline.databases import OtherDatabases
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.queue.doorbell import Doorbell
from evervec.settings import Settings
from evervec.store import datasets, providers, secrets
from evervec.store.database.session import Database, ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.providers import Provider, ProviderDraft
from evervec.store.words.frequencies import WordFrequencies

if TYPE_CHECKING:
    # half a second of imports, which most commands do without
    from evervec.queue.broker import JetStreamBroker
    from evervec.queue.queue_reader import QueueReader

INDEX_RUNS = 2
"""At most so many index runs work at a time in one process."""


@dataclass(frozen=True)
class Resources:
    """The open resources of one process."""

    settings: Settings
    database: Database
    broker: "JetStreamBroker | QueueReader | None"
    """The connection to NATS, None where PostgreSQL carries the rings: then nothing is queued."""
    doorbell: Doorbell
    clients: ProviderClients
    mirrors: Mirrors
    others: OtherDatabases = field(default_factory=OtherDatabases)
    """Databases of attached tables that are not ours."""
    questions: Tally = field(default_factory=Tally)
    """What questions took that is not in the ledger yet."""
    frequencies: WordFrequencies = field(default_factory=WordFrequencies)
    """How often words occur, for searches by words."""
    indexing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(INDEX_RUNS))
    """Limits the running index runs, each of which reads, chunks and embeds at the same time."""

    def seal(self, secret: str) -> bytes:
        """Encrypt a secret for the database. Raises `Refused` without EVERVEC_SECRET_KEY."""
        key = self.settings.secret_key
        if key is None:
            raise Refused(
                reason="API keys and passwords are stored encrypted, and EVERVEC_SECRET_KEY is not set. Set it, for "
                f"example to {secrets.new_key()}, here and for every worker."
            )
        return secrets.seal(key.get_secret_value(), secret)

    def unseal(self, sealed: bytes) -> str:
        """Decrypt a secret from the database. Raises `Refused` without the EVERVEC_SECRET_KEY that encrypted it."""
        key = self.settings.secret_key
        if key is None:
            raise Refused(reason="A source has a password: set EVERVEC_SECRET_KEY to read it.")
        return secrets.unseal(key.get_secret_value(), sealed)

    def endpoint(self, draft: ProviderDraft) -> bytes:
        """Return the digest of the endpoint that a provider is reached at, with its key."""
        key = self.settings.secret_key
        secret = None if key is None else secrets.keys(key.get_secret_value())[0]
        return endpoint_digest(draft.type, draft.base_url, draft.model or "", api_key=draft.api_key, secret=secret)

    async def provider(self, provider_id: UUID | None = None) -> Provider:
        """Return the provider with this id, else the default's. Raises `UnknownProviderError`, or `Refused` if there is none."""
        async with self.database.read() as tx:
            if provider_id is not None:
                return await providers.by_id(tx, provider_id)
            found = await providers.active(tx)
        if found is None:
            raise Refused(
                reason="No provider embeds for new datasets. Run `evervec migrate`, or `evervec providers add`."
            )
        return found

    async def provider_for(self, project: str, dataset: str) -> Provider:
        """Return who embeds the dataset of these names; of one that does not exist yet, who embeds new ones."""
        async with self.database.read() as tx:
            there = await datasets.by_slug(tx, slug("Project", project), slug("Dataset", dataset))
        return await self.provider() if there is None else await self.provider_of(there)

    async def provider_of(
        self, dataset: DatasetRef, provider_id: UUID | None = None, *, space_id: int | None = None
    ) -> Provider:
        """Return who embeds a dataset, with the space that it embeds into: the one that is searched, or another of it.

        Raises `SpaceMismatchError` for a provider that can not, `NoProviderError` where none can.
        """
        async with self.database.read() as tx:
            return await provider_in(tx, dataset, provider_id, space_id=space_id)


async def provider_in(
    tx: ReadTx, dataset: DatasetRef, provider_id: UUID | None = None, *, space_id: int | None = None
) -> Provider:
    """Return who embeds a dataset, as `Resources.provider_of` does, within a transaction."""
    wanted = dataset.space_id if space_id is None else space_id
    found = await providers.serving(tx, wanted, dataset.provider_id, only=provider_id)
    if found is not None:
        return found
    space = await providers.space(tx, wanted)
    if provider_id is not None:
        asked = await providers.by_id(tx, provider_id)
        raise SpaceMismatchError(provider=asked.name, wanted=asked.space, dataset=dataset.name, active=space)
    raise NoProviderError(dataset=dataset.name, space=space, type=space.provider, model=space.model)
