"""The `evervec` command: its commands, in the groups that its help shows."""

from importlib.metadata import version as installed
from typing import Annotated

import typer

from evervec.cli.commands import backfill, batch, failed, index, mirror, providers, search, serve, status
from evervec.cli.commands.demo import demo
from evervec.cli.commands.ingest import app as ingest
from evervec.cli.commands.ingest.watch import watch
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json

START, TEXT, CARE, RUN = "Start", "Text in, answers out", "Keep it whole", "Run it on servers"

app = typer.Typer(
    name="evervec",
    help="Keeps the text in PostgreSQL embedded and searchable. Every row embedded, every mirror true.",
    epilog="Start with `evervec demo`. Each command explains itself: `evervec search --help`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version(as_json: Json = False) -> None:
    """Print the version."""
    found = installed("evervec")
    output.document({"version": found}) if as_json else output.say(f"evervec {found}")


def _print_and_exit(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", is_eager=True, callback=_print_and_exit, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that stand before any command."""


app.command(rich_help_panel=START)(demo)
app.command(rich_help_panel=START)(serve.up)
app.command(rich_help_panel=START)(version)
app.add_typer(ingest.app, name="ingest", rich_help_panel=TEXT)
app.command(rich_help_panel=TEXT)(index.index)
app.command(rich_help_panel=TEXT)(watch)
app.command(rich_help_panel=TEXT)(search.search)
app.command(rich_help_panel=TEXT)(search.similar)
app.command(rich_help_panel=TEXT)(search.duplicates)
app.command(rich_help_panel=CARE)(status.status)
app.command(rich_help_panel=CARE)(index.runs)
app.command(rich_help_panel=CARE)(backfill.backfill)
app.add_typer(batch.app, name="batch", rich_help_panel=CARE)
app.add_typer(mirror.app, name="mirror", rich_help_panel=CARE)
app.add_typer(failed.app, name="failed", rich_help_panel=CARE)
app.add_typer(providers.app, name="providers", rich_help_panel=CARE)
app.command(rich_help_panel=RUN)(serve.migrate)
app.command(rich_help_panel=RUN)(serve.worker)
app.command(rich_help_panel=RUN)(serve.api)
app.command(rich_help_panel=RUN)(serve.scheduler)
