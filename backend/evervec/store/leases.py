"""Leases on named pieces of work, by PostgreSQL's clock: acquired, renewed, released, and required by what is written.

A lease needs no session: it works through a pooler, and a process that is frozen or cut off loses it after its time.
"""

from datetime import timedelta
from uuid import UUID

from evervec.errors import LeaseLostError
from evervec.store.database.session import ReadTx, Tx

ACQUIRE = """
WITH expired AS (
    -- skipped while a transaction that requires the lease is open, whatever the clock says
    SELECT name FROM leases WHERE name = $1 AND lease_until < now() FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE leases l SET owner = $2, acquired_at = now(), lease_until = now() + $3 FROM expired e WHERE l.name = e.name
    RETURNING 1
), made AS (
    INSERT INTO leases (name, owner, lease_until) VALUES ($1, $2, now() + $3) ON CONFLICT (name) DO NOTHING RETURNING 1
)
SELECT EXISTS (SELECT FROM taken) OR EXISTS (SELECT FROM made)
"""

IS_HELD = "EXISTS (SELECT FROM leases WHERE name = {name} AND lease_until > now())"
"""The condition that a lease is held; `name` is an SQL expression."""

KEPT = timedelta(days=1)
"""How long an expired lease is kept: its owner may wake up, and goes on if nobody took it over."""


async def acquire(tx: Tx, name: str, owner: UUID, *, seconds: float) -> bool:
    """Acquire a lease that is free or has expired; return whether it was."""
    acquired: bool = await tx.fetchval(ACQUIRE, name, owner, timedelta(seconds=seconds))
    return acquired


async def renew(tx: Tx, name: str, owner: UUID, *, seconds: float) -> bool:
    """Extend a lease, also one that has expired, unless another owner has it; return whether it is still this owner's."""
    renewed: bool | None = await tx.fetchval(
        "UPDATE leases SET lease_until = now() + $3 WHERE name = $1 AND owner = $2 RETURNING true",
        name,
        owner,
        timedelta(seconds=seconds),
    )
    return renewed is not None


async def release(tx: Tx, name: str, owner: UUID) -> None:
    """Release a lease; one that another owner has by now stays as it is."""
    await tx.execute("DELETE FROM leases WHERE name = $1 AND owner = $2", name, owner)


async def require(tx: Tx, name: str, owner: UUID) -> None:
    """Keep a lease from being taken over until this transaction ends. Raises `LeaseLostError` if it has been already."""
    # KEY SHARE stands in the way of a new owner's lock, but not in that of a renewal
    if not await tx.fetchval("SELECT true FROM leases WHERE name = $1 AND owner = $2 FOR KEY SHARE", name, owner):
        raise LeaseLostError(name=name)


async def is_held(tx: ReadTx, name: str) -> bool:
    """Return whether somebody has a lease now."""
    held: bool = await tx.fetchval(f"SELECT {IS_HELD.format(name='$1')}", name)
    return held


async def has_expired(tx: ReadTx) -> bool:
    """Return whether there is a lease for `remove_expired`."""
    found: bool = await tx.fetchval("SELECT EXISTS (SELECT FROM leases WHERE lease_until < now() - $1::interval)", KEPT)
    return found


async def remove_expired(tx: Tx) -> int:
    """Remove leases that expired long ago; return how many."""
    tag = await tx.execute(
        "DELETE FROM leases WHERE name IN (SELECT name FROM leases WHERE lease_until < now() - $1::interval "
        "FOR UPDATE SKIP LOCKED)",
        KEPT,
    )
    return int(tag.rsplit(" ", 1)[-1])
