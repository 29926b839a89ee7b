"""The limits that an operator sets on a provider or a dataset, and how they are said."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final

SLOWEST_SHARE: Final = 0.05
"""The least part of its per-minute limits that a provider is used at, however often it refuses."""

SLOWED: Final = 0.5
"""The factor of the rate after a provider has refused one below its limits."""

RECOVERED_PER_SECOND: Final = 0.05 / 60
"""What the rate regains a second, as a part of the limits: a twentieth a minute."""


@dataclass(frozen=True)
class Limits:
    """What may be sent to a provider, or for a dataset; None is no limit. Days and months are those of UTC.

    Only a provider has limits per minute: they belong to its key, whichever dataset uses it.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None

    def given(self) -> dict[str, int | float]:
        """Return the limits that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def changed(self, new: "Limits", without: Sequence[str]) -> "Limits":
        """Return these limits with the given ones of `new` in their place, and without some."""
        values: dict[str, Any] = {**asdict(self), **dict.fromkeys(without), **new.given()}
        return Limits(**values)


LIMITS: Final = tuple(field.name for field in fields(Limits))
PACES: Final = ("requests_per_minute", "tokens_per_minute")
CEILINGS: Final = tuple(name for name in LIMITS if name not in PACES)


def limit_reached(ceiling: str, limit: float, used: float, opens_at: datetime) -> str:
    """Return a sentence about a limit that is reached: which one, what was used, when it opens again."""
    what, _, period = ceiling.partition("_per_")
    if ceiling in PACES:
        return f"as much waits as {limit:,.0f} {what} a {period} allow; it goes on at {opens_at:%Y-%m-%d %H:%M:%S} UTC"
    unit = "tokens" if what == "tokens" else "dollars"
    most, taken = (f"{limit:,.0f}", f"{used:,.0f}") if what == "tokens" else (f"{limit:,.2f}", f"{used:,.4f}")
    return (
        f"the ceiling of {most} {unit} a {period} is reached ({taken} used, and the next request does not fit); it opens "
        f"again at {opens_at:%Y-%m-%d %H:%M} UTC"
    )
