"""What the hooks cost an extraction: the same messages extracted with ringing for embeddings and without."""

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter, process_time

from evervec.pipeline.extract import extract_knowledge
from evervec.pipeline.resources import Resources
from evervec.pipeline.score import score_messages
from evervec.queue.publish import Doorbell, Ring
from scripts.bench import clock, texts
from scripts.bench.report import Line, below
from scripts.bench.stack import Bench, copy_messages, dataset

NUMBERS = itertools.count()
COPIES = 4
"""How often the demo chat is in the dataset that is extracted: a dozen of the pipeline's own batches."""


class KeepingDoorbell(Doorbell):
    """The real doorbell, which remembers what it rang."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources.broker)
        self.rung: list[list[Ring]] = []

    async def ring_many(self, rings: Iterable[Ring]) -> int:
        """Ring. Raises when the queue did not take it all: a bell that nobody hears costs nothing."""
        listed = list(rings)
        if await super().ring_many(listed) != len(listed):
            raise RuntimeError("the queue did not take every task")
        self.rung.append(listed)
        return len(listed)


@dataclass
class Sides:
    """Extractions with hooks and without: seconds by the wall clock and by the processor's."""

    wall: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    busy: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})


async def run(bench: Bench) -> list[Line]:
    """The same chat again and again, with hooks and without in turns; then the same bells again, alone."""
    sides = Sides()
    pairs = 6 if bench.quick else 40
    async with bench.resources("hooks", queue=True) as opened:
        bell = KeepingDoorbell(opened)
        resources = replace(opened, doorbell=bell)
        await _extract(resources, bell, Sides(), hooks=True)  # the first one is slower
        bell.rung.clear()
        for number in range(pairs):
            for hooks in (True, False) if number % 2 else (False, True):
                await _extract(resources, bell, sides, hooks=hooks)
        return [await _ringing(opened.doorbell, bell.rung, sides.busy[False]), _pairs(sides.wall)]


async def _ringing(doorbell: Doorbell, rung: Sequence[Sequence[Ring]], busy: Sequence[float]) -> Line:
    """What the bells take of the processor: the wait for the queue is not lost, the next batch is read in it."""
    started, worked = perf_counter(), process_time()
    for rings in rung:
        await doorbell.ring_many(rings)
    taken, ringing = perf_counter() - started, (process_time() - worked) / len(busy)
    count = sum(map(len, rung))
    whole = statistics.median(busy)
    note = f"{taken / count * 1e6:.0f} microseconds a ring by the clock, {count / len(busy):.0f} rings an extraction"
    return Line("processor time of the bells", ringing * 1000, whole * 1000, "ms", ringing / whole, below(0.01), note)


async def _extract(resources: Resources, bell: KeepingDoorbell, sides: Sides, *, hooks: bool) -> None:
    """The chat in a dataset of its own, scored before, extracted in the pipeline's own batches."""
    target = await dataset(resources, f"chat-{next(NUMBERS)}")
    await copy_messages(resources, target, texts.chat() * COPIES)
    await score_messages(resources, target.id)
    rung = len(bell.rung)
    started, worked = perf_counter(), process_time()
    counts = await extract_knowledge(resources, target.id, hooks=hooks)
    sides.wall[hooks].append(perf_counter() - started)
    sides.busy[hooks].append(process_time() - worked)
    if not counts["messages"] or (len(bell.rung) > rung) != hooks:
        raise RuntimeError(f"extracted {counts}, rang {len(bell.rung) - rung} times")


def _pairs(wall: dict[bool, list[float]]) -> Line:
    """Neighbours in time are compared with each other: nothing is left out, and everything else is in it too."""
    pairs = [ours / bare for ours, bare in zip(wall[True], wall[False], strict=True)]
    low, high = clock.interval(pairs)
    ours, bare = (statistics.median(wall[hooks]) * 1000 for hooks in (True, False))
    note = f"median of {len(pairs)} pairs, 95 % interval {low:.3f} to {high:.3f}"
    return Line("extraction with hooks, without", ours, bare, "ms", statistics.median(pairs), None, note)
