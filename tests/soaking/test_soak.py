"""How the soak judges memory, reads logs and plans its moments."""

import random

import numpy as np
import pytest

from scripts.soaking.children import events
from scripts.soaking.course import MOMENTS, Outcome, Plan
from scripts.soaking.memory import LEAST, judged

TIMES = list(range(600))
EQUAL = {"equal": True, "check": True}


def test_memory_that_stays_is_flat() -> None:
    noise = np.random.default_rng(1).normal(0, 5, 600)
    builds = np.where(np.arange(600) % 40 < 5, 80, 0)  # a build holds its vectors for a moment
    held = judged(TIMES, list(300 + noise + builds))
    assert held.flat
    assert abs(held.slope) < 5


def test_memory_that_leaks_is_not_flat() -> None:
    held = judged(TIMES, [300 + 0.4 * second for second in TIMES])
    assert not held.flat
    assert held.slope == pytest.approx(24, abs=0.1)


def test_what_warms_up_is_no_leak() -> None:
    assert judged(TIMES, [100 + min(second, 190) for second in TIMES]).flat


def test_a_few_samples_say_nothing() -> None:
    assert judged(TIMES[: LEAST - 1], [float(2**n) for n in range(LEAST - 1)]).flat


def test_logs_are_counted_by_event() -> None:
    lines = ['{"event": "mirror repaired", "missing": 3}'] * 2 + ["", "Traceback (most recent call last):"]
    trouble = '{"event": "sweep failed", "exception": "Traceback\\n  line\\nDeadlockDetectedError: deadlock"}'
    assert events([*lines, trouble]) == {
        "mirror repaired": 2,
        "Traceback (most recent call last):": 1,
        "sweep failed: DeadlockDetectedError: deadlock": 1,
    }


def test_every_moment_lies_in_time() -> None:
    plan = Plan(minutes=10, rate=200, rows=30_000, seed=1)
    due = plan.moments(random.Random(3))
    assert sum(what == "compare" for _, what in due) == MOMENTS
    assert any(what == "kill" for _, what in due)
    assert due == sorted(due)
    assert 0 < due[0][0] < due[-1][0] <= 600


@pytest.mark.parametrize("bad", [{"equal": False, "check": True}, {"equal": True, "check": False}])
def test_one_dataset_that_differs_fails_the_soak(bad: dict[str, bool]) -> None:
    outcome = Outcome()
    outcome.judge("moment 1", {"large": EQUAL, "small": EQUAL})
    assert outcome.holds
    outcome.judge("moment 2", {"large": EQUAL, "small": bad})
    assert not outcome.holds
    assert outcome.failures[0].startswith("moment 2, small")


def test_an_answer_that_is_an_error_fails_the_soak() -> None:
    outcome = Outcome()
    outcome.judge("moment 1", {"error": "TimeoutError()"})
    assert outcome.failures == ["moment 1: TimeoutError()"]
