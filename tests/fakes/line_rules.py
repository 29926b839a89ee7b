"""What goes wrong with single lines of a batch's results, as the test wishes it; the bytes are the protocol's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.fakes.faults import Predicate

Spoil = Literal["nan", "zero", "short", "null", "strings", "constant"]


@dataclass(frozen=True)
class LineRule:
    """A rule for the lines that hold a text for which `matches` is true."""

    deed: Literal["fail", "drop", "duplicate", "spoil"]
    matches: Predicate
    detail: str = ""


@dataclass
class LineRules:
    """The wishes about results; of two rules of one kind the first that matches counts.

    `reverse` turns the order of the results, `cut_last_line` breaks the last one in the middle, `garbage_line` puts a
    line that is no JSON after the first, `unknown` adds that many lines with keys that nobody sent.
    """

    rules: list[LineRule] = field(default_factory=list)
    reverse: bool = False
    cut_last_line: bool = False
    garbage_line: bool = False
    unknown: int = 0

    def fail_lines(self, matches: Predicate, message: str) -> None:
        """Answer these lines with an error of their own."""
        self.rules.append(LineRule("fail", matches, message))

    def drop_lines(self, matches: Predicate) -> None:
        """Leave these lines out of the results."""
        self.rules.append(LineRule("drop", matches))

    def duplicate_lines(self, matches: Predicate) -> None:
        """Answer these lines twice."""
        self.rules.append(LineRule("duplicate", matches))

    def spoil_lines(self, matches: Predicate, how: Spoil) -> None:
        """Answer these lines with a vector that is none."""
        self.rules.append(LineRule("spoil", matches, how))

    def unknown_lines(self, count: int) -> None:
        """Add lines with keys that nobody sent."""
        self.unknown = count

    def forgive(self) -> None:
        """Forget every wish about lines."""
        self.rules = []
        self.reverse = self.cut_last_line = self.garbage_line = False
        self.unknown = 0

    def detail(self, deed: str, texts: Sequence[str]) -> str | None:
        """Return what the first rule of that kind says about a line with these texts; None if no rule applies."""
        for rule in self.rules:
            if rule.deed == deed and any(rule.matches(text) for text in texts):
                return rule.detail
        return None
