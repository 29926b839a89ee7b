"""The sync check of a large mirror, in sync and with differences to name; and the start of a process with many mirrors."""

from collections.abc import Sequence
from statistics import median

import numpy as np

from evervec.domain.feed import FeedVectors
from evervec.pipeline.mirrors.difference import MirrorDifference
from evervec.pipeline.mirrors.mirror import Mirror
from scripts.bench import mirror_process, mirror_rows, vectors
from scripts.bench.report import Line, at_most
from scripts.bench.stack import Bench, dataset

DIMENSIONS, REPEATS = 8, 11
IN_SYNC_MS, NAMED_MS, START_SECONDS = 100.0, 300.0, 5.0
SPOILT = 100
"""So many of each sort of difference: missing, extra, stale."""


async def run(bench: Bench) -> list[Line]:
    """Check a mirror of 1,000,000 narrow vectors, and 50 mirrors of 20,000 x 384."""
    return [*await _checks(bench), await _start(bench)]


async def _checks(bench: Bench) -> list[Line]:
    count = bench.rows(1_000_000)
    async with bench.resources("check") as resources:
        space = await mirror_rows.space(resources, DIMENSIONS)
        target = await dataset(resources)
        made = np.random.default_rng(3).standard_normal((count, DIMENSIONS), np.float32)
        await mirror_rows.fill(resources, target, space, made)
        await mirror_rows.settled(resources)
        mirror = await resources.mirrors.rebuild(target, "measured")
        good = [await _checked(mirror, 0) for _ in range(REPEATS)]
        _spoil(mirror)
        bad = [await _checked(mirror, SPOILT) for _ in range(REPEATS)]
    return [
        _line(f"check of {count:,} in sync, promised", good, IN_SYNC_MS),
        _line(f"check of {count:,}, {3 * SPOILT} differences named, promised", bad, NAMED_MS),
    ]


def _spoil(mirror: Mirror) -> None:
    """Make a mirror differ without the feed: some ids missing, some extra, some in another version."""
    index = mirror.index
    if index is None:
        raise RuntimeError(mirror.reason)
    ids, versions = index.versions()
    gone, old = ids[:SPOILT], slice(SPOILT, 2 * SPOILT)
    other = FeedVectors(
        np.concatenate([ids[old], ids.max() + 1 + np.arange(SPOILT)]),
        np.concatenate([versions[old] - 1, versions[old]]),
        np.ones(2 * SPOILT, np.int16),
        np.full((2 * SPOILT, DIMENSIONS), DIMENSIONS**-0.5, np.float32),
    )
    index.repair(other, gone)


async def _checked(mirror: Mirror, differences: int) -> MirrorDifference:
    found = await mirror.check(repair=False)
    if (found.missing, found.extra, found.stale) != (differences,) * 3:
        raise RuntimeError(f"{differences} of each were to be found: {found}")
    return found


def _line(name: str, found: Sequence[MirrorDifference], bound: float) -> Line:
    taken = [check.milliseconds for check in found]
    middle = median(taken)
    return Line(name, middle, bound, "ms", middle / bound, at_most(1), f"slowest of {len(taken)}: {max(taken):.0f} ms")


async def _start(bench: Bench) -> Line:
    """Measure in a new process, with the files that a process before has written."""
    each = bench.rows(20_000)
    async with bench.resources("start50", queue=True) as resources:
        space = await mirror_rows.space(resources, vectors.DIMENSIONS)
        targets = [await dataset(resources, f"bench-{number}") for number in range(50)]
        made = vectors.make("clustered", each).rows
        for number, target in enumerate(targets):
            await mirror_rows.fill(resources, target, space, made, first=number * each)
        await mirror_rows.settled(resources)
        for target in targets:
            await resources.mirrors.rebuild(target, "measured")
            resources.mirrors.mirror(target).drop("measured")
        taken = [(await mirror_process.run_child(resources, "start"))["seconds"] for _ in range(3)]
    name = f"start with 50 mirrors of {each:,}, all checked; promised"
    note = f"the slowest of three: {max(taken):.2f} s"
    return Line(name, median(taken), START_SECONDS, "s", median(taken) / START_SECONDS, at_most(1), note)
