"""Stopwatch and rounds: variants take turns, so that a slow moment of the machine meets them all."""

import random
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter

Timed = Callable[[], Awaitable[float]]


async def seconds(work: Awaitable[object]) -> float:
    """How long it takes to await something."""
    started = perf_counter()
    await work
    return perf_counter() - started


async def rounds(count: int, variants: Mapping[str, Timed]) -> dict[str, list[float]]:
    """Run every variant once a round, the first one last in every second round; return seconds by variant.

    A variant answers its own seconds, so that its preparation is not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(count):
        order = list(variants.items())
        for name, variant in order if number % 2 == 0 else reversed(order):
            taken[name].append(await variant())
    return taken


def interval(values: Sequence[float], *, draws: int = 2000) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the median."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(draws * 0.025)], medians[int(draws * 0.975)]
