"""How far a space is that is built beside the one that is searched, for people."""

from evervec.pipeline.spaces.progress import BuildStatus


def time_left(seconds: float | None) -> str:
    """Return the time that is left in one unit: `40 s`, `12 min`, `3.5 h`; nothing where it is unknown."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def told(one: BuildStatus) -> str:
    """Return one line about a build."""
    left = f", {time_left(one.seconds_left)} left" if one.seconds_left else ""
    failed = f", {one.failed:,} failed" if one.failed else ""
    then = "searched by itself then" if one.automatic else "searched after `evervec spaces activate`"
    return f"{one.space} is built beside {one.searched}: {one.coverage:.1%}{left}{failed}; {then}"
