"""When a cron time comes next: the first minute that pycron calls now, and none before it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycron import is_now

from evervec.pipeline.status.due import next_due

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("cron", "due"),
    [
        ("0 3 * * 0", datetime(2026, 1, 4, 3, tzinfo=UTC)),
        ("0 3 * * sun", datetime(2026, 1, 4, 3, tzinfo=UTC)),
        ("* * * * *", datetime(2026, 1, 1, 0, 1, tzinfo=UTC)),
        ("0 0 1 1 *", datetime(2027, 1, 1, tzinfo=UTC)),
        ("30 12 29 2 *", datetime(2028, 2, 29, 12, 30, tzinfo=UTC)),
        ("*/20 22-23 * * 5", datetime(2026, 1, 2, 22, tzinfo=UTC)),
        ("0 3 30 2 *", None),
        ("61 * * * *", None),
        ("* * *", None),
        ("*/0 * * * *", None),
        ("", None),
    ],
)
def test_the_next_time_is_found_or_there_is_none(cron: str, due: datetime | None) -> None:
    assert next_due(cron, NEW_YEAR) == due


def test_what_is_due_now_is_due_the_next_time_later() -> None:
    assert next_due("0 0 * * *", NEW_YEAR) == NEW_YEAR + timedelta(days=1)
    assert next_due("0 0 * * *", NEW_YEAR - timedelta(seconds=1)) == NEW_YEAR


def field(low: int, high: int) -> st.SearchStrategy[str]:
    steps = st.sampled_from(["*/2", "*/5", "*/7"])
    return st.one_of(st.just("*"), st.integers(low, high).map(str), steps)


@given(
    st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).map(" ".join),
    st.datetimes(datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2030-01-01")),
)
def test_nothing_is_due_before_it(cron: str, after: datetime) -> None:
    due = next_due(cron, after)
    at = after.replace(second=0, microsecond=0)
    for _ in range(2000):
        at += timedelta(minutes=1)
        if due is not None and at >= due:
            break
        assert not is_now(cron, at)
    assert due is None or (due > after and is_now(cron, due))
