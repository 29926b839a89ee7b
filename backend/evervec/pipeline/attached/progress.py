"""How far the rows of an attached table that were there before are taken in: what `sources.cursor` holds for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from evervec.domain.attachment import Key


@dataclass(frozen=True)
class Progress:
    """The state of taking in existing rows.

    They are walked by key, `after` is the last one taken in, `taken_in` counts them, `expected` is the planner's estimate
    when the walk began, `generation` grows when the attachment is replaced. While `checked` is not None every document is
    first looked up in the table, also when the walk is done; it is the last uri.
    """

    after: Key | None = None
    done: bool = False
    taken_in: int = 0
    expected: int = 0
    checked: str | None = None
    newest_first: bool = False
    rows_per_second: float | None = None
    seconds: float = 0.0
    error: str | None = None
    generation: int = 0

    @classmethod
    def load(cls, cursor: Mapping[str, Any]) -> "Progress":
        """Return the state from its stored form."""
        known = {name: cursor[name] for name in cls.__dataclass_fields__ if name in cursor}
        after = known.get("after")
        return cls(**known | {"after": None if after is None else tuple(after)})

    def dump(self) -> dict[str, Any]:
        """Return the form in which it is stored."""
        return asdict(self)

    def again(self, expected: int, *, compare: bool) -> "Progress":
        """Return the state before a new walk; with `compare` every document is looked up first."""
        return replace(
            self, after=None, done=False, taken_in=0, expected=expected, seconds=0.0, checked="" if compare else None
        )

    @property
    def is_complete(self) -> bool:
        """Return whether nothing is left to be taken in, and no document to be looked up."""
        return self.done and self.checked is None

    @property
    def remaining_seconds(self) -> float | None:
        """Return how long the rest will take at the speed so far; None if that is not known, or nothing is left."""
        if self.done or not self.taken_in or not self.seconds:
            return None
        left = max(self.expected - self.taken_in, 0)
        return left * self.seconds / self.taken_in

    @property
    def speed(self) -> float | None:
        """Return rows a second so far."""
        return self.taken_in / self.seconds if self.taken_in and self.seconds else None
