"""How the command line looks: widths, numbers, progress; and that nothing in a text is taken for a command."""

import io
import time

import pytest
from rich.console import Console

from evervec.cli.terminal import output

PATIENCE = 60.0


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """stderr as a terminal of 80 columns."""
    screen = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=screen, force_terminal=True, width=80, highlight=False))
    return screen


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """stdout as a terminal of 80 columns without colours."""
    paper = io.StringIO()
    console = Console(file=paper, force_terminal=True, no_color=True, width=80, highlight=False, color_system=None)
    monkeypatch.setattr(output, "out", console)
    return paper


def test_a_table_fits_the_line_and_cuts_only_the_text(page: io.StringIO) -> None:
    rows = [(0.5, "message", "123456789", "log", "word " * 100), (1.0, "atom", "1", "b", "short")]
    output.table(("score", "kind", "id", "dataset", "text"), rows)
    header, first, second = page.getvalue().rstrip("\n").split("\n")
    assert all(len(line.rstrip()) <= 80 for line in (header, first, second))
    assert "123456789" in first
    assert first.rstrip().endswith("word…")
    assert second.split() == ["1.000", "atom", "1", "b", "short"]


def test_numbers_stand_to_the_right_with_separators(page: io.StringIO) -> None:
    output.table(("name", "rows"), [("a", 1), ("b", 1_234_567)])
    _, first, second = (line.rstrip() for line in page.getvalue().rstrip("\n").split("\n"))
    assert len(first) == len(second)
    assert second.endswith("1,234,567")


def test_a_long_line_is_wrapped_at_words_with_its_indent(page: io.StringIO) -> None:
    output.echo("word " * 40, indent=4)
    lines = page.getvalue().rstrip("\n").split("\n")
    assert len(lines) > 1
    assert all(line.startswith("    word") and len(line) <= 80 for line in lines)


def test_nothing_in_a_text_is_obeyed(page: io.StringIO) -> None:
    output.echo("[bold]x[/] :warning: \x1b[2J \u202e \\[y]")
    assert page.getvalue() == "[bold]x[/] :warning: \ufffd[2J \ufffd \\[y]\n"


def test_a_bar_shows_what_takes_long(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "BAR_AFTER", 0.01)
    with output.progress("rows", 10) as step:
        step(4)
        ends = time.monotonic() + PATIENCE
        while "4/10" not in terminal.getvalue():
            assert time.monotonic() < ends, terminal.getvalue()
    assert "rows" in terminal.getvalue()


def test_what_is_done_at_once_shows_no_bar(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "BAR_AFTER", 60.0)
    with output.progress("rows", 10) as step:
        step(10)
    assert terminal.getvalue() == ""


def test_there_is_no_bar_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(output, "BAR_AFTER", 0.0)
    monkeypatch.setattr(output, "err", Console(file=pipe, width=80))
    with output.progress("rows", 10) as step, output.waiting("opening"):
        step(10)
    assert pipe.getvalue() == ""
