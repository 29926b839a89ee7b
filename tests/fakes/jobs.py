"""One batch job of the fake: its lines, read from disk whenever they are needed, and how far it has come."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from tests.fakes.line_rules import LineRules
from tests.fakes.remote_files import RemoteFile
from tests.fakes.vectors import tokens

Outcome = Literal["succeed", "fail", "expire", "cancel", "unknown_state", "vanish", "results_vanish"]


class State(StrEnum):
    """The state of a job; each protocol has its own words for these."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a job: what to embed, or, for a line with media, what the fake will say of it.

    `problem` is why a healthy provider refuses this line alone.
    """

    key: str
    texts: tuple[str, ...]
    dims: int | None = None
    base64: bool = False
    problem: str | None = None


Parse = Callable[[bytes], Line]
SHOWN = (
    "id", "number", "protocol", "kind", "model", "display_name", "metadata", "input_file", "outcome", "state", "polled",
    "deleted", "never_ran", "message", "output_file", "error_file",
)  # fmt: skip
Publish = Callable[["Job"], Iterable[RemoteFile]]


@dataclass
class Scan:
    """The result of one reading of a job's file: where lines begin, what they hold, and why the job must fail."""

    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    texts: int = 0
    tokens: int = 0
    problems: int = 0
    defect: str | None = None

    @classmethod
    def of(cls, path: Path, parse: Parse, *, distinct: bool) -> "Scan":
        """Read a file of lines; with `distinct`, two lines with one key are a defect."""
        found, keys, at = cls(), set[str](), 0
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                here, at = at, at + len(raw)
                if not raw.strip():
                    continue
                try:
                    line = parse(raw)
                except (ValueError, TypeError, KeyError, AttributeError) as problem:
                    found.defect = found.defect or f"Line {number} cannot be read: {problem}"
                    continue
                if distinct and line.key in keys:
                    found.defect = found.defect or f"Line {number} repeats the key '{line.key}'."
                keys.add(line.key)
                found._count(here, line)
        if not found.offsets:
            found.defect = found.defect or "The file has no line."
        return found

    def _count(self, here: int, line: Line) -> None:
        self.offsets.append(here)
        self.texts += len(line.texts)
        self.tokens += sum(tokens(text) for text in line.texts)
        self.problems += line.problem is not None


@dataclass
class Job:
    """One job as it was created; `lines` are read anew each time, so keep what you ask for.

    `number` counts the jobs of this fake from 1. `rules` are the line rules of the moment in which the job ended.
    """

    id: str
    number: int
    protocol: str
    kind: Literal["embed", "describe"]
    model: str
    path: Path = field(repr=False)
    parse: Parse = field(repr=False)
    publish: Publish = field(repr=False)
    scan: Scan = field(repr=False)
    display_name: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    input_file: str | None = None
    outcome: Outcome = "succeed"
    width: int = 0
    state: State = State.PENDING
    polled: int = 0
    deleted: bool = False
    never_ran: bool = False
    code: str = "server_error"
    message: str = ""
    rules: LineRules = field(default_factory=LineRules, repr=False)
    failed_lines: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    output_file: str | None = None
    error_file: str | None = None

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Yield (key, text) of every text, in the order of the input; the text of media is its description."""
        return [(line.key, text) for line in self.read() for text in line.texts]

    @property
    def finished(self) -> int:
        """Return how many lines were worked on: an expired job stops half-way."""
        return len(self.scan.offsets) // 2 if self.state is State.EXPIRED else len(self.scan.offsets)

    def summary(self, *, lines: bool = False) -> dict[str, Any]:
        """Return what another process is shown of it."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in SHOWN} | {"lines": len(self.scan.offsets)}
        return shown | ({"texts": self.lines} if lines else {})

    def read(self, *, reverse: bool = False) -> Iterator[Line]:
        """Read the lines, one at a time."""
        for _, line in self.numbered(reverse=reverse):
            yield line

    def numbered(self, *, reverse: bool = False) -> Iterator[tuple[int, Line]]:
        """Yield the lines and their numbers in the input, from 0."""
        offsets = self.scan.offsets
        with self.path.open("rb") as file:
            for place in reversed(range(len(offsets))) if reverse else range(len(offsets)):
                if reverse or file.tell() != offsets[place]:
                    file.seek(offsets[place])
                yield place, self.parse(file.readline())
