"""The results of a job, line by line and never all at once: which line is answered how; each protocol writes its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.fakes import spoiling
from tests.fakes.faults import Fault
from tests.fakes.jobs import Job, Line, State
from tests.fakes.vectors import fresh_vector

CHUNK = 1 << 18
GARBAGE = b"<html>502 Bad Gateway</html>\n"
SPOILS = {
    "nan": Fault.NAN,
    "zero": Fault.ZERO_VECTOR,
    "short": Fault.WRONG_DIMS,
    "null": Fault.NULL,
    "strings": Fault.STRINGS,
    "constant": Fault.CONSTANT,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one line: an error of its own, a spoiled vector, no answer in time, or a good one."""

    line: Line
    failure: str | None = None
    spoil: str | None = None
    expired: bool = False


Render = Callable[[Job, Verdict], bytes | None]


def vectors(job: Job, verdict: Verdict) -> list[Any]:
    """Return one vector per text of the line, spoiled if a rule says so."""
    dims = verdict.line.dims or job.width
    rows = [fresh_vector(job.model, text, dims) for text in verdict.line.texts]
    if verdict.spoil is None:
        return rows
    spoil = spoiling.SPOILERS[SPOILS[verdict.spoil]]
    return [spoil([row.tolist()])[0] for row in rows]


def verdicts(job: Job) -> Iterator[Verdict]:
    """Yield the outcome of each line, in the order of the results."""
    for place, line in job.numbered(reverse=job.rules.reverse):
        failure = line.problem or job.rules.detail("fail", line.texts)
        yield Verdict(line, failure, job.rules.detail("spoil", line.texts), place >= job.finished)


def count_failed(job: Job) -> int:
    """Count the lines that have an error of their own."""
    if job.state is not State.SUCCEEDED or not (job.scan.problems or job.rules.rules):
        return 0
    return sum(verdict.failure is not None for verdict in verdicts(job))


def write(job: Job, render: Render, *, clean: bool = False) -> Iterator[bytes]:
    """Yield the bytes of one file of results in chunks; `clean` for a file without rules about the file as a whole."""
    waiting, size = list[bytes](), 0
    held = b""
    for line in _lines(job, render) if clean else _disturbed(job, render):
        if held:
            waiting.append(held)
            size += len(held)
        held = line
        if size >= CHUNK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if held and job.rules.cut_last_line and not clean:
        held = held[: len(held) // 2]
    yield b"".join((*waiting, held))


def _lines(job: Job, render: Render) -> Iterator[bytes]:
    for verdict in verdicts(job):
        line = render(job, verdict)
        if line is None or job.rules.detail("drop", verdict.line.texts) is not None:
            continue
        yield line
        if job.rules.detail("duplicate", verdict.line.texts) is not None:
            yield line


def _disturbed(job: Job, render: Render) -> Iterator[bytes]:
    """Yield the lines, and those that nobody asked for."""
    garbage = job.rules.garbage_line
    for line in _lines(job, render):
        yield line
        if garbage:
            yield GARBAGE
        garbage = False
    for number in range(job.rules.unknown):
        stranger = Line(f"nobody-sent-{number}", (f"nobody sent {number}",))
        yield render(job, Verdict(stranger)) or b""
