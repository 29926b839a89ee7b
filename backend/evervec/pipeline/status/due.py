"""The next time that a cron expression names. Whether a given minute matches, pycron says. The caller brings the time."""

from datetime import UTC, datetime, time, timedelta

from pycron import is_now

DAYS = 8 * 366
"""Looked ahead: 29 February may be eight years away."""


def next_due(cron: str, after: datetime) -> datetime | None:
    """Return the first minute after `after` that five fields like `0 3 * * 0` name, in the zone of `after`.

    None for a time that never comes, such as 30 February, and for an invalid expression: nothing is ever sent by it.
    """
    soonest = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    try:
        minute, hour, *day = cron.split(" ")
        times = _times(minute, hour)
        for ahead in range(DAYS):
            date = soonest.date() + timedelta(days=ahead)
            if is_now(f"* * {' '.join(day)}", datetime.combine(date, time.min)):
                due = [datetime.combine(date, at, soonest.tzinfo) for at in times]
                if (found := next((at for at in due if at >= soonest), None)) is not None:
                    return found
    except (ValueError, ZeroDivisionError):
        return None
    return None


def _times(minute: str, hour: str) -> list[time]:
    """Return the minutes of a day, in order."""
    start = datetime.min.replace(tzinfo=UTC)
    hours = [n for n in range(24) if is_now(f"* {hour} * * *", start.replace(hour=n))]
    minutes = [n for n in range(60) if is_now(f"{minute} * * * *", start.replace(minute=n))]
    return [time(h, m) for h in hours for m in minutes]
