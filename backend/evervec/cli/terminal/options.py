"""Options that many commands share, spelled once."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON document on stdout.")]
Dataset = Annotated[
    str | None, typer.Option(metavar="NAME", help="A dataset: name, project/name or uuid; all if not given.")
]
Project = Annotated[str | None, typer.Option(metavar="NAME", help="A project by name; all if not given.")]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="message, topic, atom or chunk; all if not given.")]
Limit = Annotated[int, typer.Option("--limit", "-k", metavar="N", min=1, max=1000, help="How many at most.")]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Take only what matches, as in .gitignore: '*.md', 'docs/**'. Again for more."),
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Leave out what matches, beside .gitignore. Again for more.")
]
AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", metavar="", help="Let all documents go where nothing is found any more.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Say what would be done; change nothing.")]
