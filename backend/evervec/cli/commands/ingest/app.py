"""`evervec ingest`: the group of commands by which text comes in."""

import typer

from evervec.cli.commands.ingest.files import files
from evervec.cli.commands.ingest.sql import sql
from evervec.cli.commands.ingest.telegram import telegram

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Take text in."""


app.command()(files)
app.command()(sql)
app.command()(telegram)
