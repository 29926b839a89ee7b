"""The ledger: what was sent to which provider, for which dataset and why, a few rows a day."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date
from uuid import UUID

from evervec.domain.spending import COUNTS, LedgerKey, Spent
from evervec.store.database.session import ReadTx, Tx

DAY_PARTS = 8
"""Rows among which the counts of one day, provider, model, dataset and reason are spread: connections that write at once
would wait for each other's transaction at a single one."""

_TYPES = {field.name: "float8" if field.type is float else "bigint" for field in fields(Spent)}
_ARRAYS = ", ".join(f"${place}::{type_}[]" for place, type_ in enumerate(_TYPES.values(), 5))
_SUMS = ", ".join(f"{name} = s.{name} + EXCLUDED.{name}" for name in COUNTS)

ADD = f"""
INSERT INTO spend AS s (day, part, provider, model, dataset_id, reason, {", ".join(COUNTS)})
SELECT (now() AT TIME ZONE 'UTC')::date, pg_backend_pid() % {DAY_PARTS}, n.*
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], {_ARRAYS}) AS n
ON CONFLICT (day, provider, model, dataset_id, reason, part) DO UPDATE SET {_SUMS}
"""


async def add(tx: Tx, entries: Mapping[LedgerKey, Spent]) -> None:
    """Add counts to the rows of today (UTC). The last statement of its transaction: no lock is waited for after it."""
    if not entries:
        return
    # in one order, so that two transactions never wait for each other
    ordered = sorted(entries.items(), key=lambda entry: (entry[0].provider, entry[0].model, str(entry[0].dataset_id)))
    counts = zip(*(astuple(spent) for _, spent in ordered), strict=True)
    await tx.execute(
        ADD,
        [key.provider for key, _ in ordered],
        [key.model for key, _ in ordered],
        [key.dataset_id for key, _ in ordered],
        [str(key.reason) for key, _ in ordered],
        *(list(column) for column in counts),
    )


@dataclass(kw_only=True)
class SpendLine(Spent):
    """The counts of some rows of the ledger; what they were not grouped by is None, and so is a dataset that is gone."""

    day: date | None = None
    provider: str | None = None
    model: str | None = None
    project: str | None = None
    dataset: str | None = None
    reason: str | None = None


GROUPS = {
    "day": {"day": "s.day"},
    "provider": {"provider": "s.provider"},
    "model": {"model": "s.model"},
    "dataset": {"project": "p.slug", "dataset": "d.slug"},
    "reason": {"reason": "s.reason"},
}
"""What the ledger can be grouped by, and the columns of each."""


async def lines(
    tx: ReadTx, by: Sequence[str], *, since: date | None = None, dataset_ids: Sequence[UUID] | None = None
) -> list[SpendLine]:
    """Return the ledger since a day, summed up by some of `GROUPS`, in their order; of some datasets alone if they are given."""
    columns = {name: column for group in by for name, column in GROUPS[group].items()}
    sums = [f"coalesce(sum(s.{name}), 0)::{type_} AS {name}" for name, type_ in _TYPES.items()]
    chosen = [*(f"{column} AS {name}" for name, column in columns.items()), *sums]
    grouped = f"GROUP BY {', '.join(columns.values())} ORDER BY {', '.join(columns.values())}" if columns else ""
    found = await tx.fetch(
        f"""
        SELECT {", ".join(chosen)}
        FROM spend s LEFT JOIN datasets d ON d.id = s.dataset_id LEFT JOIN projects p ON p.id = d.project_id
        WHERE ($1::date IS NULL OR s.day >= $1) AND ($2::uuid[] IS NULL OR s.dataset_id = ANY($2)) {grouped}
        """,
        since,
        None if dataset_ids is None else list(dataset_ids),
    )
    return [SpendLine(**row) for row in found]


@dataclass(frozen=True)
class Reuse:
    """How many texts were sent, and how many rows got the vector of an equal text instead; `share` is the part of these."""

    texts: int = 0
    reused: int = 0
    share: float = 0.0


async def reuse(tx: ReadTx, dataset_ids: Sequence[UUID]) -> Reuse:
    """Return what reuse has saved some datasets so far."""
    row = await tx.fetchrow(
        "SELECT coalesce(sum(texts), 0)::bigint AS texts, coalesce(sum(reused), 0)::bigint AS reused FROM spend "
        "WHERE dataset_id = ANY($1) AND reason <> 'query'",
        list(dataset_ids),
    )
    assert row is not None  # an aggregate
    whole = row["texts"] + row["reused"]
    return Reuse(row["texts"], row["reused"], round(row["reused"] / whole, 4) if whole else 0.0)


MEASURED = """
SELECT coalesce(sum(seconds), 0)::float8 AS seconds, coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(tokens), 0)::bigint AS tokens
FROM spend WHERE provider = $1 AND model = $2 AND reason IN ('live', 'backfill', 're-embed') AND day > (now() AT TIME ZONE 'UTC')::date - 30
"""


@dataclass(frozen=True)
class Measured:
    """What a provider took for the embedding of the last 30 days."""

    seconds: float
    requests: int
    tokens: int


async def measured(tx: ReadTx, provider: str, model: str) -> Measured:
    """Return how long a provider took for what it embedded in the last 30 days; zeros where it embedded nothing."""
    row = await tx.fetchrow(MEASURED, provider, model)
    assert row is not None  # an aggregate
    return Measured(row["seconds"], row["requests"], row["tokens"])
