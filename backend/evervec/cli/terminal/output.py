"""What the command line prints: one JSON document, or lines and tables, on stdout; everything else on stderr."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Timer
from uuid import UUID

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evervec.domain.text import snippet

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)

BAR_AFTER = 1.0
LEAST_TEXT = 20
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def document(value: object, *, on_one_line: bool = False) -> None:
    """Print one JSON document on stdout: of a dataclass, a dict or a list."""
    option = 0 if on_one_line else orjson.OPT_INDENT_2
    sys.stdout.write(orjson.dumps(value, _uuid, option).decode() + "\n")


def _uuid(value: object) -> str:
    """Return a UUID of the database driver as text: orjson knows the standard class alone, not its subclasses."""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def plain(text: str, style: str = "") -> Text:
    """Return text as it is: no markup, no emoji codes, no control characters."""
    return Text(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), style)


def echo(text: str = "", *, style: str = "", indent: int = 0) -> None:
    """Print a paragraph for people on stdout."""
    _print(out, plain(text, style), indent)


def info(text: str, *, indent: int = 0) -> None:
    """Print a paragraph about the work on stderr."""
    _print(err, plain(text, "dim"), indent)


def error(text: str) -> None:
    """Print what went wrong and what to do on stderr."""
    _print(err, Text.assemble(("error: ", "bold red"), plain(text)))


def _print(console: Console, text: Text, indent: int = 0) -> None:
    """Print a text wrapped at words on a terminal; on one line elsewhere, for programs."""
    if not console.is_terminal:
        console.print(Text(" " * indent) + text, soft_wrap=True)
        return
    for line in text.wrap(console, max(20, console.width - indent)) or [text]:
        console.print(Text(" " * indent) + line, soft_wrap=True)


def shorten(text: str, *, taken: int = 0) -> str:
    """Return a text on one line, as much of it as fits beside `taken` columns."""
    return snippet(text, max(LEAST_TEXT, out.width - taken))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for people: numbers to the right; text in the last column is cut where the line ends."""
    made = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    listed = [list(row) for row in rows]
    for place, column in enumerate(made.columns):
        if listed and all(isinstance(row[place], int | float) for row in listed):
            column.justify = "right"
    cells = [[_cell(value) for value in row] for row in listed]
    taken = sum(2 + max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(columns[:-1]))
    for column in made.columns[:-1]:
        column.no_wrap = True
    for values, row in zip(listed, cells, strict=True):
        last = [plain(shorten(values[-1], taken=taken))] if isinstance(values[-1], str) else row[-1:]
        made.add_row(*row[:-1], *last)
    # what identifies a row is never cut by the table itself: a line may be longer than the window
    out.print(made, width=max(out.width, taken + LEAST_TEXT), crop=False, soft_wrap=taken + LEAST_TEXT > out.width)


def _cell(value: object) -> Text:
    match value:
        case float():
            return Text(f"{value:.3f}")
        case int():
            return Text(f"{value:,}")
        case _:
            return plain(str(value))


def progress(what: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
    """Show a bar on a terminal for what takes longer than a second; silent elsewhere. Give a function that takes a count."""
    return _bar(what, total, counts=True) if err.is_terminal else nullcontext(lambda _count: None)


def waiting(what: str) -> AbstractContextManager[Callable[[int], None]]:
    """Show the same for what can not be counted."""
    return _bar(what, None, counts=False) if err.is_terminal else nullcontext(lambda _count: None)


@contextmanager
def _bar(what: str, total: int | None, *, counts: bool) -> Iterator[Callable[[int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    counted = (BarColumn(), MofNCompleteColumn()) if total else (TextColumn("{task.completed:,}"),)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *(counted if counts else ()),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
    task = bar.add_task(what, total=total)
    shows = Timer(BAR_AFTER, bar.start)
    shows.start()
    try:
        yield lambda count: bar.advance(task, count)
    finally:
        shows.cancel()
        if shows.is_alive():
            shows.join()
        if bar.live.is_started:
            bar.stop()
