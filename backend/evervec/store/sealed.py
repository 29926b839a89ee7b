"""Everything in the database that is encrypted: the keys of providers, the addresses of sources."""

from collections.abc import Callable
from uuid import UUID

from evervec.store.database.session import Tx

Reseal = Callable[[bytes], bytes]


async def reseal_sources(tx: Tx, reseal: Reseal) -> int:
    """Encrypt the addresses of sources anew; return how many there are."""
    found = await tx.fetch("SELECT id, url_encrypted FROM sources WHERE url_encrypted IS NOT NULL FOR UPDATE")
    for row in found:
        await tx.execute("UPDATE sources SET url_encrypted = $2 WHERE id = $1", row["id"], reseal(row["url_encrypted"]))
    return len(found)


async def reseal_provider(tx: Tx, provider_id: UUID, *, sealed: bytes, endpoint: bytes) -> None:
    """Replace the encrypted key of a provider, and the digest of its endpoint, which depends on the secret key."""
    await tx.execute(
        "UPDATE llm_providers SET api_key_encrypted = $2, endpoint = $3, checked_at = NULL WHERE id = $1",
        provider_id,
        sealed,
        endpoint,
    )
