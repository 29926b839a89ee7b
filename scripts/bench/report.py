"""The report of a benchmark: one line a comparison, and the three ways to show a whole run. Nothing is measured here."""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- begin: scripts/bench/run --group {group} --markdown -->", "<!-- end -->"
COLUMNS = ("benchmark", "comparison", "ours", "against", "unit", "ratio", "promise", "")


@dataclass(frozen=True)
class Promise:
    """A bound on a ratio: `at least` or `at most`."""

    sign: str
    bound: float

    def holds(self, ratio: float) -> bool:
        """Whether a ratio keeps it."""
        return bool({"≥": operator.ge, "≤": operator.le, "<": operator.lt}[self.sign](ratio, self.bound))


@dataclass(frozen=True)
class Line:
    """Two numbers in one unit, measured in the same run, and what their ratio is promised to be."""

    name: str
    ours: float
    against: float
    unit: str
    ratio: float
    promise: Promise | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """In a word, whether the promise holds."""
        if self.promise is None:
            return ""
        return "holds" if self.promise.holds(self.ratio) else "MISSED"


def at_least(bound: float) -> Promise:
    """Return the promise that the ratio does not fall below `bound`."""
    return Promise("≥", bound)


def at_most(bound: float) -> Promise:
    """Return the promise that the ratio does not rise above `bound`."""
    return Promise("≤", bound)


def below(bound: float) -> Promise:
    """Return the promise that the ratio stays under `bound`."""
    return Promise("<", bound)


def rate(
    name: str,
    rows: int,
    ours: Sequence[float],
    against: Sequence[float],
    promise: Promise | None = None,
    note: str = "",
) -> Line:
    """Rows a second in the best round of each side: whatever else the machine does only ever adds time."""
    fast, bare = rows / min(ours), rows / min(against)
    return Line(name, fast, bare, "rows/s", fast / bare, promise, note)


Findings = dict[str, list[Line]]


def held(findings: Findings) -> bool:
    """Whether no promise was missed."""
    return all(line.verdict != "MISSED" for lines in findings.values() for line in lines)


def percentiles(name: str, taken: Sequence[float], promise: Callable[[float], Promise], **bounds: float) -> list[Line]:
    """Return a line for each bound (milliseconds by percentile)."""
    values = {which: float(np.percentile(taken, int(which[1:]))) for which in bounds}
    note = f"{len(taken):,} commits, median {np.median(taken):.2f}, slowest {max(taken):.1f} ms"
    return [
        Line(f"{name}, {which}; promised", value, bounds[which], "ms", value / bounds[which], promise(1), note)
        for which, value in values.items()
    ]


def show(findings: Findings, facts: dict[str, object]) -> None:
    """Print a table for people, on stderr."""
    console = Console(stderr=True, highlight=False)
    table = Table(*COLUMNS, box=None, header_style="bold", pad_edge=False)
    for column in (2, 3, 5):
        table.columns[column].justify = "right"
    for cells in _rows(findings):
        table.add_row(*cells)
    console.print(table)
    for note in _notes(findings):
        console.print(note, style="dim", soft_wrap=True)
    console.print(_said(facts), style="dim", soft_wrap=True)


def document(findings: Findings, facts: dict[str, object]) -> dict[str, Any]:
    """Return the run as one JSON document."""
    listed = {
        name: [asdict(line) | {"verdict": line.verdict or None} for line in lines] for name, lines in findings.items()
    }
    return {"holds": held(findings), "machine": facts, "benchmarks": listed}


def markdown(findings: Findings, facts: dict[str, object], path: Path, group: str) -> None:
    """Put the run between the group's two markers of a Markdown file. Raises `ValueError` for a file without them."""
    begin = BEGIN.format(group=group)
    before, opened, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(END)
    if not opened or not closed:
        raise ValueError(f"{path} has no lines {begin} and {END}")
    rows = [COLUMNS, ("---", "---", "---:", "---:", "---", "---:", "---", "---"), *_rows(findings)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    notes = "\n".join(f"- {note}" for note in _notes(findings))
    path.write_text(f"{before}{begin}\n{table}\n\nMeasured on: {_said(facts)}.\n\n{notes}\n{END}{after}")


def _rows(findings: Findings) -> Iterable[Sequence[str]]:
    for name, lines in findings.items():
        for line in lines:
            promise = f"{line.promise.sign} {line.promise.bound:g}" if line.promise else ""
            ratio = f"{line.ratio:.2f}" if line.ratio >= 0.1 else f"{line.ratio:.4f}"
            yield name, line.name, _number(line.ours), _number(line.against), line.unit, ratio, promise, line.verdict


def _notes(findings: Findings) -> list[str]:
    return [f"{name}, {line.name}: {line.note}" for name, lines in findings.items() for line in lines if line.note]


def _said(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
