"""How much memory a process holds, and whether that stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GROWTH, SLACK_MB = 0.10, 16.0
"""Flat is: the last third of the time does not hold more than that above the third before it."""
LEAST = 30
"""Fewer samples than that say nothing."""


@dataclass(frozen=True)
class Memory:
    """What the samples say, in MB. `slope` is MB a minute after the first third, in which everything warms up."""

    before: float
    after: float
    most: float
    slope: float
    flat: bool
    samples: int


def anonymous(pid: int) -> float:
    """Return the MB that a process holds for itself: without mapped files, which the system takes back as it likes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def judged(times: Sequence[float], megabytes: Sequence[float]) -> Memory:
    """Judge memory by seconds and MB, sample by sample. It takes medians, because a build holds its vectors for a moment."""
    third = len(times) // 3
    if len(times) < LEAST:
        return Memory(0.0, 0.0, max(megabytes, default=0.0), 0.0, True, len(times))
    before, after = (float(np.median(part)) for part in (megabytes[third : 2 * third], megabytes[2 * third :]))
    slope = float(np.polyfit(np.array(times[third:]) / 60, megabytes[third:], 1)[0])
    flat = after <= before * (1 + GROWTH) + SLACK_MB
    return Memory(round(before, 1), round(after, 1), round(max(megabytes), 1), round(slope, 2), flat, len(times))
