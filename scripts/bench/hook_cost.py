"""What the hooks cost an extraction: the same messages extracted with ringing for embeddings and without."""

import ctypes
import gc
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from evervec.pipeline.extraction.extract import extract_knowledge
from evervec.pipeline.extraction.score import score_messages
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.queue.doorbell import Ring
from evervec.queue.nats_doorbell import NatsDoorbell
from scripts.bench import clock, texts
from scripts.bench.report import Line, below
from scripts.bench.stack import Bench, copy_messages, dataset

NUMBERS = itertools.count()
COPIES = 8
"""How often the demo chat is in the dataset that is extracted: ten of the pipeline's own batches."""
PROMISE = 0.01


class KeepingDoorbell(NatsDoorbell):
    """The real doorbell, which records what it rang."""

    def __init__(self, resources: Resources) -> None:
        assert isinstance(resources.broker, JetStreamBroker)
        super().__init__(resources.broker)
        self.rung: list[list[Ring]] = []

    async def ring_many(self, rings: Iterable[Ring]) -> int:
        """Ring, and record it. Raises if the queue did not take it all, because an unsent doorbell would cost nothing."""
        listed = list(rings)
        if await super().ring_many(listed) != len(listed):
            raise RuntimeError("the queue did not take every task")
        self.rung.append(listed)
        return len(listed)


@dataclass
class Sides:
    """Extractions with hooks and without, two of each in a round: seconds by the wall clock and the processor's."""

    wall: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    busy: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})


async def run(bench: Bench) -> list[Line]:
    """Extract the same chat many times, with hooks and without in turns; then send the same doorbells again, alone."""
    sides = Sides()
    rounds = 4 if bench.quick else 80
    async with bench.resources("hooks", queue=True) as opened:
        doorbell = KeepingDoorbell(opened)
        resources = replace(opened, doorbell=doorbell)
        with _one_blas_thread():
            await _extract(resources, doorbell, Sides(), hooks=True)  # the first one is slower
            doorbell.rung.clear()
            for number in range(rounds):
                # there and back: what drifts meets both sides alike
                for hooks in (True, False, False, True) if number % 2 else (False, True, True, False):
                    await _extract(resources, doorbell, sides, hooks=hooks)
            assert isinstance(opened.doorbell, NatsDoorbell)
            alone = await _ringing(opened.doorbell, doorbell.rung, sides.busy[False])
        return [_share(sides.wall), _same(sides.wall), alone]


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Idle threads of OpenBLAS spin on the cores of the servers: more noise than what is looked for, and slower."""
    library = next(Path(np.__file__).parents[1].glob("numpy.libs/libscipy_openblas64_*"), None)
    if library is None:  # a numpy that was not built by its own project
        yield
        return
    blas = ctypes.CDLL(str(library))
    before = blas.scipy_openblas_get_num_threads64_()
    blas.scipy_openblas_set_num_threads64_(1)
    try:
        yield
    finally:
        blas.scipy_openblas_set_num_threads64_(before)


async def _extract(resources: Resources, doorbell: KeepingDoorbell, sides: Sides, *, hooks: bool) -> None:
    """Extract the chat in a database of its own, scored before, in the pipeline's own batches."""
    await _clean(resources)
    target = await dataset(resources, f"chat-{next(NUMBERS)}")
    await copy_messages(resources, target, texts.chat() * COPIES)
    await score_messages(resources, target.id)
    rung = len(doorbell.rung)
    gc.collect()
    started, worked = perf_counter(), process_time()
    counts = await extract_knowledge(resources, target.id, hooks=hooks)
    sides.wall[hooks].append(perf_counter() - started)
    sides.busy[hooks].append(process_time() - worked)
    if not counts["messages"] or (len(doorbell.rung) > rung) != hooks:
        raise RuntimeError(f"extracted {counts}, rang {len(doorbell.rung) - rung} times")


async def _clean(resources: Resources) -> None:
    """Nothing of the extraction before: neither its rows and tasks nor what the servers would still write of them."""
    async with resources.database.autocommit() as connection:
        await connection.execute("TRUNCATE datasets CASCADE")
        await connection.execute("CHECKPOINT")
    assert isinstance(resources.broker, JetStreamBroker)
    await resources.broker.js.purge_stream(resources.broker.layout.stream)


def _share(wall: dict[bool, list[float]]) -> Line:
    """Return what the hooks add, round by round."""
    both = {hooks: [sum(two) for two in zip(taken[::2], taken[1::2], strict=True)] for hooks, taken in wall.items()}
    shares = [ours / bare - 1 for ours, bare in zip(both[True], both[False], strict=True)]
    low, high = clock.interval(shares)
    share, bare = statistics.median(shares), statistics.median(wall[False]) * 1000
    shown = "" if high < PROMISE or low >= PROMISE else "not shown: "
    note = f"{shown}95 % interval {low:.4f} to {high:.4f}, median of {len(shares)} rounds of two with and two without"
    return Line("added to an extraction", share * bare, bare, "ms", share, below(PROMISE), note)


def _same(wall: dict[bool, list[float]]) -> Line:
    """Return the same comparison where nothing differs, which shows the effect of chance and order alone."""
    pairs = [pair for taken in wall.values() for pair in zip(taken[::2], taken[1::2], strict=True)]
    apart = [later / earlier - 1 for earlier, later in pairs]
    low, high = clock.interval(apart)
    share, earlier = statistics.median(apart), statistics.median(first for first, _ in pairs) * 1000
    note = f"later against earlier of a round, same side: 95 % interval {low:.4f} to {high:.4f}, {len(apart)} pairs"
    return Line("added by nothing", share * earlier, earlier, "ms", share, None, note)


async def _ringing(doorbell: NatsDoorbell, rung: Sequence[Sequence[Ring]], busy: Sequence[float]) -> Line:
    """Where it goes: what the same doorbells take of the processor when nothing else runs."""
    started, worked = perf_counter(), process_time()
    for rings in rung:
        await doorbell.ring_many(rings)
    taken, ringing = perf_counter() - started, (process_time() - worked) / len(busy)
    count = sum(map(len, rung))
    whole = statistics.median(busy)
    note = f"{taken / count * 1e6:.0f} microseconds a ring by the clock, {count / len(busy):.0f} rings an extraction"
    return Line(
        "processor time of the doorbells alone", ringing * 1000, whole * 1000, "ms", ringing / whole, None, note
    )
