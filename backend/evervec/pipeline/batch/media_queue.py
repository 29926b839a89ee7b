"""Pictures and sounds wait for batch jobs that describe them: registered as documents, and counted."""

from collections.abc import Sequence
from uuid import UUID

from evervec.domain.documents.document import IncomingDocument
from evervec.domain.vendors import MEDIA_TYPES
from evervec.errors import NoMediaModelError
from evervec.pipeline.chunking import lock_dataset
from evervec.store.batch import media
from evervec.store.database.session import Database, Tx
from evervec.store.providers import Provider


def require_model(provider: Provider) -> None:
    """Raise `NoMediaModelError` unless the provider has a model that describes pictures and sounds."""
    if provider.type not in MEDIA_TYPES or not provider.chat_model:
        missing = "no model that describes them" if provider.type not in MEDIA_TYPES else "no chat model"
        raise NoMediaModelError(
            provider=provider.name, type=provider.type, missing=missing, types=" or ".join(MEDIA_TYPES)
        )


async def register(database: Database, dataset_id: UUID, provider: Provider, given: Sequence[IncomingDocument]) -> int:
    """Save files as documents that wait for a description; return how many are new or changed.

    Raises `NoMediaModelError` and `DatasetGone`.
    """
    require_model(provider)
    async with database.read() as tx:
        same = await media.unchanged(tx, dataset_id, given)
    changed = [one for one in given if one.uri not in same]

    async def once(tx: Tx) -> None:
        await lock_dataset(tx, dataset_id)
        await media.upsert(tx, dataset_id, changed)

    if changed:
        await database.with_retries(once)
    return len(changed)


async def waiting_files(database: Database, scope: Sequence[UUID]) -> int:
    """Count the files of some datasets that wait for a model that describes them."""
    async with database.read() as tx:
        return sum(count for _, count in await media.waiting(tx, scope))
