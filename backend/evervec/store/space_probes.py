"""What a known text's vector was when a space was first checked, and which providers are due to be checked again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from evervec.store.database.session import Tx


@dataclass(frozen=True)
class KnownVector:
    """The vector of the known text in a space, and the digest of the model that made it, where the server tells one."""

    vector: Sequence[float]
    model_digest: str | None


async def claim_due(tx: Tx, *, seconds: float) -> UUID | None:
    """Return a provider that was not checked for so long, and count it as checked; None if there is none left."""
    claimed: UUID | None = await tx.fetchval(
        "UPDATE llm_providers SET checked_at = now() WHERE id = (SELECT id FROM llm_providers "
        "WHERE checked_at IS NULL OR checked_at < now() - $1::interval ORDER BY checked_at NULLS FIRST, id LIMIT 1 "
        "FOR UPDATE SKIP LOCKED) RETURNING id",
        timedelta(seconds=seconds),
    )
    return claimed


async def make_due(tx: Tx, endpoint: bytes | None = None) -> None:
    """Let the providers of an endpoint be checked as soon as possible; None means all."""
    await tx.execute(
        "UPDATE llm_providers SET checked_at = NULL WHERE checked_at IS NOT NULL AND ($1::bytea IS NULL OR endpoint = $1)",
        endpoint,
    )


async def ensure(tx: Tx, space_id: int, probe: KnownVector) -> KnownVector:
    """Keep the first probe of a space, and return the one that is kept."""
    await tx.execute(
        "INSERT INTO space_probes (space_id, vector, model_digest) VALUES ($1, $2, $3) ON CONFLICT (space_id) DO NOTHING",
        space_id,
        list(probe.vector),
        probe.model_digest,
    )
    row = await tx.fetchrow("SELECT vector, model_digest FROM space_probes WHERE space_id = $1", space_id)
    return probe if row is None else KnownVector(row["vector"], row["model_digest"])


async def keep_digest(tx: Tx, space_id: int, model_digest: str | None) -> None:
    """Keep the digest of a model that embeds as the one before it did."""
    await tx.execute("UPDATE space_probes SET model_digest = $2 WHERE space_id = $1", space_id, model_digest)


async def forget(tx: Tx, space_id: int) -> None:
    """Forget the probe of a space: the next check keeps what the model answers then.

    For whoever accepts a drifted model, beside `breakers.accept`, and has all rows embedded again.
    """
    await tx.execute("DELETE FROM space_probes WHERE space_id = $1", space_id)
