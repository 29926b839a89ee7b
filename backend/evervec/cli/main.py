"""The `evervec` command: its groups and what they hold."""

import typer

from evervec.cli import backfill, failed, ingest, providers, search, serve, status
from evervec.cli.demo import demo

app = typer.Typer(
    name="evervec",
    help="Keeps the text in PostgreSQL embedded and searchable. Every row embedded, every mirror true.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.up)
app.command()(demo)
app.command()(serve.migrate)
app.command()(serve.worker)
app.command()(serve.api)
app.command()(serve.scheduler)
app.command()(status.status)
app.command()(search.search)
app.command()(search.similar)
app.command()(search.duplicates)
app.command()(backfill.backfill)
app.add_typer(ingest.app, name="ingest", help="Take text in.")
app.add_typer(providers.app, name="providers", help="Who embeds and extracts.")
app.add_typer(failed.app, name="failed", help="What was given up on, and why.")


def main() -> None:
    """The entry point of the installed command."""
    app()
