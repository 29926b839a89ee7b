"""How the command line speaks: one JSON document or tables on stdout, everything else on stderr."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def document(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; numbers to the right."""
    made = Table(*columns, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    listed = [list(row) for row in rows]
    for place, column in enumerate(made.columns):
        if listed and all(isinstance(row[place], int | float) for row in listed):
            column.justify = "right"
    for row in listed:
        made.add_row(*(_cell(value) for value in row))
    out.print(made)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("[", "\\[")


def say(text: str = "", *, style: str | None = None) -> None:
    """A line for people, on stdout."""
    out.print(text.replace("[", "\\["), style=style, soft_wrap=True)


def note(text: str) -> None:
    """A line about the work, on stderr."""
    err.print(text.replace("[", "\\["), style="dim")


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Any]:
    """A bar on a terminal that shows after the first step; silent elsewhere. Yields a function that takes a count."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def step(count: int) -> None:
            bar.advance(task, count)

        yield step
