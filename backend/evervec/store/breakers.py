"""Circuit breakers: what all workers know of an endpoint that failed. A closed one has no record."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from evervec.store.database.session import ReadTx, Tx

DRIFTED: Final = "drifted"
"""The code of a model that does not embed as it did: only a health check closes that breaker."""


@dataclass(frozen=True)
class Breaker:
    """The circuit breaker of an endpoint. `seconds` are left until one worker may try it; closed, `code` is None."""

    seconds: float = 0.0
    code: str | None = None
    error: str | None = None
    failures: int = 0

    @property
    def is_open(self) -> bool:
        """Return whether nothing may be sent now."""
        return self.seconds > 0 or self.code == DRIFTED


OPEN = """
INSERT INTO provider_breakers AS b (endpoint, failures, open_until, code, error)
VALUES ($1, $5::boolean::int, now() + $2, $3, $4)
ON CONFLICT (endpoint) DO UPDATE SET
    failures = b.failures + ($5 AND b.failures = $6)::int, code = EXCLUDED.code, error = EXCLUDED.error,
    open_until = greatest(b.open_until, EXCLUDED.open_until), trial_owner = NULL, trial_until = NULL
-- what a health check found is not written over by a request that was on its way
WHERE b.code <> 'drifted' OR EXCLUDED.code = 'drifted'
RETURNING extract(epoch FROM b.open_until - now())::float8
"""


async def open_(tx: Tx, endpoint: bytes, *, seconds: float, code: str, error: str, counted: bool, known: int) -> float:
    """Open the breaker of an endpoint, and return the seconds until it may be tried.

    A counted failure doubles the next pause. Requests that fail at the same time were started at the same number of
    `known` failures, and count once.
    """
    left: float | None = await tx.fetchval(OPEN, endpoint, timedelta(seconds=seconds), code, error, counted, known)
    return seconds if left is None else left


async def close(tx: Tx, endpoint: bytes) -> None:
    """Close the breaker of an endpoint after a good answer."""
    await tx.execute("DELETE FROM provider_breakers WHERE endpoint = $1 AND code <> 'drifted'", endpoint)


async def accept(tx: Tx, endpoint: bytes) -> None:
    """Close the breaker of an endpoint whatever opened it, also a drift."""
    await tx.execute("DELETE FROM provider_breakers WHERE endpoint = $1", endpoint)


async def is_open(tx: ReadTx, endpoint: bytes) -> bool:
    """Return whether nothing may be sent to an endpoint now."""
    opened = "SELECT EXISTS (SELECT FROM provider_breakers WHERE endpoint = $1 AND open_until > now())"
    return bool(await tx.fetchval(opened, endpoint))


async def begin_trial(tx: Tx, endpoint: bytes, owner: UUID, *, seconds: float) -> bool:
    """Let one owner try an endpoint whose pause is over, for `seconds`; return whether it is this one."""
    begun: bool | None = await tx.fetchval(
        "UPDATE provider_breakers SET trial_owner = $2, trial_until = now() + $3 WHERE endpoint = $1 AND open_until <= now() "
        "AND code <> 'drifted' AND (trial_until IS NULL OR trial_until <= now()) RETURNING true",
        endpoint,
        owner,
        timedelta(seconds=seconds),
    )
    return begun is not None


async def end_trial(tx: Tx, endpoint: bytes, owner: UUID) -> None:
    """Let another owner try an endpoint: this one had nothing to send."""
    await tx.execute(
        "UPDATE provider_breakers SET trial_owner = NULL, trial_until = NULL WHERE endpoint = $1 AND trial_owner = $2",
        endpoint,
        owner,
    )


async def remove_unused(tx: Tx) -> None:
    """Remove the breakers of endpoints that no provider has any more."""
    await tx.execute(
        "DELETE FROM provider_breakers b WHERE NOT EXISTS (SELECT FROM llm_providers p WHERE p.endpoint = b.endpoint)"
    )
