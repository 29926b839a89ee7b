"""Budgets: what may be sent to a provider or for a dataset, what was, and the pace that all workers share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any
from uuid import UUID

from evervec.domain.limits import CEILINGS, LIMITS, RECOVERED_PER_SECOND, SLOWED, SLOWEST_SHARE, Limits, limit_reached
from evervec.store.database.session import ReadTx, Tx

TODAY = "(now() AT TIME ZONE 'UTC')::date"
THIS_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"


@dataclass(frozen=True)
class Budget:
    """The limits of a provider or a dataset, and what was used of them.

    `share` is the part of the limits per minute that is used now: less than 1 after the provider refused that much.
    `closed_by` names the ceiling that nothing fits under until `closed_until`.
    """

    provider: str | None
    project: str | None
    dataset: str | None
    limits: Limits
    share: float
    day_tokens: int
    day_usd: float
    month_tokens: int
    month_usd: float
    closed_by: str | None
    closed_until: datetime | None

    @property
    def owner(self) -> str:
        """Return whose budget it is."""
        return self.provider or f"{self.project}/{self.dataset}"

    def used(self, limit: str) -> float:
        """Return what was used of a ceiling; of a pace nothing is counted."""
        what, _, period = limit.partition("_per_")
        return float(getattr(self, f"{period}_{what}", 0))

    def room(self, usd_per_token: float) -> float:
        """Return how many tokens still fit under its ceilings; infinity where there is none."""
        room = inf
        for ceiling in CEILINGS:
            limit: float | None = getattr(self.limits, ceiling)
            if limit is not None:
                left = max(0.0, limit - self.used(ceiling))
                in_dollars = ceiling.startswith("usd")
                room = min(room, left if not in_dollars else left / usd_per_token if usd_per_token else inf)
        return room

    def reason(self) -> str | None:
        """Return the sentence about the limit that is reached; None if none is."""
        if self.closed_by is None or self.closed_until is None:
            return None
        said = limit_reached(
            self.closed_by, getattr(self.limits, self.closed_by) or 0, self.used(self.closed_by), self.closed_until
        )
        return f"{self.owner}: {said}. Raise it with `evervec budget set`."


SELECT = f"""
SELECT p.name AS provider, j.slug AS project, d.slug AS dataset, {", ".join(f"b.{name}" for name in LIMITS)},
       least(1, b.share + {RECOVERED_PER_SECOND} * extract(epoch FROM now() - b.filled_at))::float8 AS share,
       CASE WHEN b.day = {TODAY} THEN b.day_tokens ELSE 0 END AS day_tokens,
       CASE WHEN b.day = {TODAY} THEN b.day_usd ELSE 0 END AS day_usd,
       CASE WHEN b.month = {THIS_MONTH} THEN b.month_tokens ELSE 0 END AS month_tokens,
       CASE WHEN b.month = {THIS_MONTH} THEN b.month_usd ELSE 0 END AS month_usd,
       CASE WHEN b.closed_until > now() THEN b.closed_by END AS closed_by,
       CASE WHEN b.closed_until > now() THEN b.closed_until END AS closed_until
FROM budgets b LEFT JOIN llm_providers p ON p.id = b.provider_id LEFT JOIN datasets d ON d.id = b.dataset_id
LEFT JOIN projects j ON j.id = d.project_id
"""


def _budget(row: Mapping[str, Any]) -> Budget:
    values = dict(row)
    limits = Limits(**{name: values.pop(name) for name in LIMITS})
    return Budget(**values, limits=limits)


async def every(tx: ReadTx) -> list[Budget]:
    """Return all budgets, those of providers first."""
    return [_budget(row) for row in await tx.fetch(f"{SELECT} ORDER BY p.name, j.slug, d.slug")]


async def of(tx: ReadTx, *, provider_id: UUID | None = None, dataset_id: UUID | None = None) -> Budget | None:
    """Return the budget of a provider or of a dataset."""
    row = await tx.fetchrow(f"{SELECT} WHERE b.provider_id = $1 OR b.dataset_id = $2", provider_id, dataset_id)
    return None if row is None else _budget(row)


async def beside(tx: ReadTx, provider_id: UUID, dataset_ids: Sequence[UUID]) -> list[tuple[UUID | None, Budget]]:
    """Return the budgets of a provider (None) and of datasets that it embeds for."""
    which = "WHERE b.provider_id = $1 OR b.dataset_id = ANY($2) ORDER BY b.id"
    ids = await tx.fetch(f"SELECT dataset_id FROM budgets b {which}", provider_id, list(dataset_ids))
    found = await tx.fetch(f"{SELECT} {which}", provider_id, list(dataset_ids))
    return [(one["dataset_id"], _budget(row)) for one, row in zip(ids, found, strict=True)]


async def closed(tx: ReadTx, provider_id: UUID, dataset_id: UUID | None) -> Budget | None:
    """Return the budget whose ceiling keeps a dataset from being embedded by a provider now, if there is one."""
    row = await tx.fetchrow(
        f"{SELECT} WHERE (b.provider_id = $1 OR b.dataset_id = $2) AND b.closed_until > now() ORDER BY b.closed_until DESC LIMIT 1",
        provider_id,
        dataset_id,
    )
    return None if row is None else _budget(row)


# What was sent before there was a budget counts too: the ledger knows.
SET = f"""
INSERT INTO budgets AS b (provider_id, dataset_id, {", ".join(LIMITS)}, day, day_tokens, day_usd, month, month_tokens, month_usd)
SELECT $1, $2, {", ".join(f"${place}" for place in range(3, 3 + len(LIMITS)))},
       {TODAY}, coalesce(sum(CASE WHEN s.told_tokens > 0 THEN s.told_tokens ELSE s.tokens END) FILTER (WHERE s.day = {TODAY}), 0),
       coalesce(sum(s.usd) FILTER (WHERE s.day = {TODAY}), 0),
       {THIS_MONTH}, coalesce(sum(CASE WHEN s.told_tokens > 0 THEN s.told_tokens ELSE s.tokens END), 0), coalesce(sum(s.usd), 0)
FROM spend s WHERE s.day >= {THIS_MONTH}
  AND (s.dataset_id = $2 OR s.provider = (SELECT name FROM llm_providers WHERE id = $1))
ON CONFLICT ({{key}}) DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in LIMITS)},
    share = 1, requests = NULL, tokens = NULL, filled_at = now(), closed_by = NULL, closed_until = NULL
"""


async def set_limits(
    tx: Tx, limits: Limits, *, provider_id: UUID | None = None, dataset_id: UUID | None = None
) -> None:
    """Save the limits of a provider or of a dataset. What was used stays used; a ceiling that was reached opens."""
    key = "provider_id" if provider_id is not None else "dataset_id"
    await tx.execute(SET.format(key=key), provider_id, dataset_id, *asdict(limits).values())


async def remove(tx: Tx, *, provider_id: UUID | None = None, dataset_id: UUID | None = None) -> bool:
    """Remove the budget of a provider or of a dataset; return whether there was one."""
    tag = await tx.execute("DELETE FROM budgets WHERE provider_id = $1 OR dataset_id = $2", provider_id, dataset_id)
    return tag != "DELETE 0"


# A bucket is refilled all the time and holds what a second brings. A request that it does not hold is taken in advance,
# and waits until the bucket is out of debt: so every worker knows its turn by one statement, and none asks again.
TAKE_TOKENS = f"""
WITH loads AS (
    SELECT * FROM unnest($2::uuid[], $3::bigint[]) AS l (dataset_id, tokens)
), locked AS MATERIALIZED (
    -- in one order; whoever waits here sees the newest numbers
    SELECT b.* FROM budgets b WHERE b.provider_id = $1 OR b.dataset_id = ANY($2) ORDER BY b.id FOR UPDATE
), wanted AS (
    SELECT l.*, (SELECT coalesce(sum(tokens), 0) FROM loads WHERE l.provider_id IS NOT NULL OR loads.dataset_id = l.dataset_id) AS want,
           $7::int AS paced,
           extract(epoch FROM now() - l.filled_at)::float8 AS elapsed,
           CASE WHEN l.day = {TODAY} THEN l.day_tokens ELSE 0 END AS today_tokens,
           CASE WHEN l.day = {TODAY} THEN l.day_usd ELSE 0 END AS today_usd,
           CASE WHEN l.month = {THIS_MONTH} THEN l.month_tokens ELSE 0 END AS months_tokens,
           CASE WHEN l.month = {THIS_MONTH} THEN l.month_usd ELSE 0 END AS months_usd
    FROM locked l
), paced AS (
    SELECT w.*, w.want * $4::float8 AS want_usd, least(1, w.share + {RECOVERED_PER_SECOND} * w.elapsed) AS share_now
    FROM wanted w
), filled AS (
    SELECT p.*, p.requests_per_minute * p.share_now / 60 AS request_rate, p.tokens_per_minute * p.share_now / 60 AS token_rate
    FROM paced p
), judged AS (
    SELECT f.*,
           least(greatest(1, f.request_rate), coalesce(f.requests + f.request_rate * f.elapsed, greatest(1, f.request_rate))) - f.paced AS requests_left,
           least(f.token_rate, coalesce(f.tokens + f.token_rate * f.elapsed, f.token_rate)) - f.want * f.paced AS tokens_left,
           CASE WHEN f.today_tokens + f.want > f.tokens_per_day THEN 'tokens_per_day'
                WHEN f.months_tokens + f.want > f.tokens_per_month THEN 'tokens_per_month'
                WHEN f.today_usd + f.want_usd > f.usd_per_day THEN 'usd_per_day'
                WHEN f.months_usd + f.want_usd > f.usd_per_month THEN 'usd_per_month' END AS ceiling
    FROM filled f
), timed AS (
    SELECT j.*, greatest(0, coalesce(-j.requests_left / j.request_rate, 0),
                         -- a request larger than a second's tokens waits for a full bucket, not for more than it can hold
                         coalesce(-(j.tokens_left + greatest(0, j.want - j.token_rate)) / j.token_rate, 0)) * j.paced AS wait
    FROM judged j
), decided AS (
    SELECT $5 OR (bool_and(ceiling IS NULL) AND coalesce(max(wait), 0) <= $6) AS granted FROM timed
), taken AS (
    UPDATE budgets b SET
        share = t.share_now, filled_at = now(),
        requests = CASE WHEN d.granted THEN t.requests_left ELSE t.requests_left + t.paced END,
        tokens = CASE WHEN d.granted THEN t.tokens_left ELSE t.tokens_left + t.want * t.paced END,
        day = {TODAY}, month = {THIS_MONTH},
        day_tokens = t.today_tokens + CASE WHEN d.granted THEN t.want ELSE 0 END,
        day_usd = t.today_usd + CASE WHEN d.granted THEN t.want_usd ELSE 0 END,
        month_tokens = t.months_tokens + CASE WHEN d.granted THEN t.want ELSE 0 END,
        month_usd = t.months_usd + CASE WHEN d.granted THEN t.want_usd ELSE 0 END,
        closed_by = CASE WHEN d.granted THEN b.closed_by WHEN t.ceiling IS NOT NULL THEN t.ceiling
                         WHEN t.wait > $6 THEN CASE WHEN t.requests_left < 0 THEN 'requests_per_minute' ELSE 'tokens_per_minute' END END,
        closed_until = CASE WHEN d.granted THEN b.closed_until
                            WHEN t.ceiling LIKE '%_day' THEN ({TODAY} + 1)::timestamp AT TIME ZONE 'UTC'
                            WHEN t.ceiling IS NOT NULL THEN ({THIS_MONTH} + interval '1 month') AT TIME ZONE 'UTC'
                            WHEN t.wait > $6 THEN now() + make_interval(secs => t.wait - $6) END
    FROM timed t, decided d WHERE b.id = t.id
)
SELECT d.granted, t.wait, t.ceiling, t.dataset_id,
       -- what still fits under the ceilings
       floor(least(t.tokens_per_day - t.today_tokens, t.tokens_per_month - t.months_tokens,
                   (t.usd_per_day - t.today_usd) / nullif($4, 0), (t.usd_per_month - t.months_usd) / nullif($4, 0)))::bigint AS room
FROM timed t, decided d ORDER BY t.ceiling IS NULL, t.wait DESC
"""


@dataclass(frozen=True)
class Grant:
    """The answer of the budgets to a request.

    Granted, it may be sent after `wait` seconds. Else it was too long a wait, or a `ceiling` stands in the way, of a dataset
    or of the provider (`dataset_id` None), under which `room` tokens still fit.
    """

    granted: bool
    wait: float = 0.0
    ceiling: str | None = None
    dataset_id: UUID | None = None
    room: int = 0


async def take(
    tx: Tx,
    provider_id: UUID,
    tokens: Mapping[UUID | None, int],
    *,
    usd_per_token: float,
    longest_wait: float = inf,
    whatever: bool = False,
    paced: bool = True,
) -> Grant:
    """Take the tokens of one request, by dataset, out of every budget that they belong to, or out of none.

    With `whatever` it is taken in any case, and counted. What is not `paced`, as a batch job, is under the ceilings alone.
    """
    found = await tx.fetch(
        TAKE_TOKENS, provider_id, list(tokens), list(tokens.values()), usd_per_token, whatever, longest_wait, int(paced)
    )
    if not found:
        return Grant(True)
    first = found[0]
    wait = max(row["wait"] for row in found)
    if first["granted"]:
        return Grant(True, wait)
    return Grant(False, wait, first["ceiling"], first["dataset_id"], max(0, first["room"] or 0))


CORRECT_TOKENS = f"""
UPDATE budgets b SET
    day_tokens = greatest(0, b.day_tokens + c.tokens * (b.day = {TODAY})::int),
    day_usd = greatest(0, b.day_usd + c.tokens * $4 * (b.day = {TODAY})::int),
    month_tokens = greatest(0, b.month_tokens + c.tokens * (b.month = {THIS_MONTH})::int),
    month_usd = greatest(0, b.month_usd + c.tokens * $4 * (b.month = {THIS_MONTH})::int),
    tokens = b.tokens - c.tokens * $5::int,
    -- what is given back may be what the next request needs
    closed_by = CASE WHEN c.tokens >= 0 THEN b.closed_by END,
    closed_until = CASE WHEN c.tokens >= 0 THEN b.closed_until END
FROM (
    SELECT m.id, sum(l.tokens) AS tokens FROM budgets m, unnest($2::uuid[], $3::bigint[]) AS l (dataset_id, tokens)
    WHERE m.provider_id = $1 OR m.dataset_id = l.dataset_id GROUP BY m.id
) c WHERE b.id = c.id
"""


async def correct(
    tx: Tx, provider_id: UUID | None, tokens: Mapping[UUID | None, int], *, usd_per_token: float, paced: bool = True
) -> None:
    """Add to what was taken the difference to what it was: by dataset, more tokens or (below 0) less."""
    if any(tokens.values()):
        await tx.execute(CORRECT_TOKENS, provider_id, list(tokens), list(tokens.values()), usd_per_token, int(paced))


async def slow_down(tx: Tx, provider_id: UUID, *, seconds: float) -> None:
    """Halve the pace of a provider that refused a request which was sent `seconds` ago: once for those on their way together."""
    await tx.execute(
        f"UPDATE budgets SET share = greatest({SLOWEST_SHARE}, share * {SLOWED}), slowed_at = now() "
        "WHERE provider_id = $1 AND num_nonnulls(requests_per_minute, tokens_per_minute) > 0 "
        "AND (slowed_at IS NULL OR slowed_at < now() - $2::interval)",
        provider_id,
        timedelta(seconds=seconds),
    )
