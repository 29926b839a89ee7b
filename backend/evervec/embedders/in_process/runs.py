"""Windows of one length, run together: how many at a time, on how many threads."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

RUN_TOKENS: Final = 1024
"""Tokens of one run: what is gained above is lost in the processor's caches, and memory grows with it."""

THREADS: Final = min(4, max(1, (os.cpu_count() or 1) // 2))
"""Half of the processors: PostgreSQL and the other half of the pipeline need the rest."""


class Window(Protocol):
    """A part of a text that fits the model."""

    @property
    def tokens(self) -> int:
        """Return how many tokens it has, special ones included."""
        ...


AnyWindow = TypeVar("AnyWindow", bound=Window)


def runs(windows: Sequence[AnyWindow], most_tokens: int) -> Iterator[list[AnyWindow]]:
    """Yield windows of one length together, at most `most_tokens` of them, but one window at least; the shortest first."""
    waiting = iter(sorted(windows, key=lambda window: window.tokens))
    first = next(waiting, None)
    while first is not None:
        size = max(1, most_tokens // max(1, first.tokens))
        run, rest = [first], None
        for window in islice(waiting, size - 1):
            if window.tokens != first.tokens:
                rest = window
                break
            run.append(window)
        yield run
        first = rest if rest is not None else next(waiting, None)


def tokens_of_run(model: Path) -> int:
    """Return how many tokens may be run together; 1 means one window.

    A model that quantizes while it runs takes its scale from all of a run: a text's vector would depend on its neighbours.
    """
    return 1 if _quantizes_while_it_runs(model) else RUN_TOKENS


def _quantizes_while_it_runs(model: Path) -> bool:
    """Return whether the graph has a node as DynamicQuantizeLinear: its name stands in the file as it is."""
    with model.open("rb") as file:
        tail = b""
        while piece := file.read(1 << 20):
            if b"DynamicQuantize" in tail + piece:
                return True
            tail = piece[-16:]
    return False
