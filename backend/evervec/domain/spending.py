"""What sending texts takes and saves: the counts of the ledger, and why something was sent."""

from dataclasses import dataclass, fields
from enum import StrEnum
from time import monotonic
from uuid import UUID


class Reason(StrEnum):
    """Why something was sent to a provider."""

    LIVE = "live"
    BACKFILL = "backfill"
    REEMBED = "re-embed"
    QUERY = "query"
    BATCH = "batch"
    EXTRACTION = "extraction"
    PROBE = "probe"


@dataclass
class Spent:
    """What some requests took, and what was saved beside them.

    `tokens` are counted by us, `told_tokens` by the provider in those answers that say so; `seconds` were spent waiting for
    it. `usd` is the price of what has one, `unpriced_tokens` are the tokens of what has none. `reused` rows got the vector
    of an equal text, `unchanged` chunks were left as they are; `saved_usd` is what both, and the batch price, saved.
    """

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    told_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    unpriced_tokens: int = 0
    reused: int = 0
    reused_tokens: int = 0
    unchanged: int = 0
    unchanged_tokens: int = 0
    saved_usd: float = 0.0

    def add(self, other: "Spent") -> None:
        """Add other counts to these."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class LedgerKey:
    """What is counted apart within a day. Questions over several datasets and probes belong to no dataset."""

    provider: str
    model: str
    dataset_id: UUID | None
    reason: Reason


class Tally:
    """Counts that are not in the ledger yet; `begun` is when the first of them may have come (`time.monotonic()`)."""

    def __init__(self) -> None:
        self.entries: dict[LedgerKey, Spent] = {}
        self.begun = monotonic()

    def entry(self, key: LedgerKey) -> Spent:
        """Return the counts of a key, to be added to."""
        return self.entries.setdefault(key, Spent())

    def take(self) -> dict[LedgerKey, Spent]:
        """Return all counts, and begin again."""
        taken, self.entries, self.begun = self.entries, {}, monotonic()
        return taken


COUNTS = tuple(field.name for field in fields(Spent))
"""The names of the counts, which are columns of the ledger too."""


def cost(tokens: int, usd_per_million_tokens: float | None) -> float | None:
    """Return the dollars that so many tokens cost; None where the price is unknown."""
    return None if usd_per_million_tokens is None else tokens * usd_per_million_tokens / 1_000_000


def shared_out(total: int, weights: list[int]) -> list[int]:
    """Divide a whole number in proportion to weights, so that the parts sum up to it; equally where all weights are 0."""
    whole = sum(weights) or len(weights)
    parts, given, seen = list[int](), 0, 0
    for weight in weights:
        seen += weight if sum(weights) else 1
        parts.append(total * seen // whole - given)
        given += parts[-1]
    return parts
