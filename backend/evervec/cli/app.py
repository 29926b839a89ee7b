"""The `evervec` command: what there is, in the panels that its help shows. A command is imported when it is run."""

from typing import Annotated, Final

import typer

from evervec.cli.terminal.lazy import Listed, lazy_group

START, TEXT, CARE, RUN = "Start", "Text in, answers out", "Operate it", "Run it on servers"

# What is listed here says the same as the command itself; a test compares them.
COMMANDS: Final = {
    "demo": Listed(
        "evervec.cli.commands.demo:demo",
        START,
        "Import a team's chat, extract knowledge, embed every row, answer questions. Nothing stays on the disk.",
    ),
    "up": Listed(
        "evervec.cli.commands.serve:up",
        START,
        "Run the whole stack on this machine: PostgreSQL, NATS, a worker, the scheduler. Ctrl-C stops it all.",
    ),
    "version": Listed("evervec.cli.commands.version:version", START, "Print the version."),
    "index": Listed(
        "evervec.cli.commands.index:index",
        TEXT,
        "Index a dataset from its source: chunk and embed what changed, leave the rest as it is.",
    ),
    "attach": Listed(
        "evervec.cli.commands.attach:attach",
        TEXT,
        "Embed a table in place: every change of a row is recorded by the transaction that makes it, and taken in.",
    ),
    "attachments": Listed(
        "evervec.cli.commands.attach:attachments",
        TEXT,
        "List attached tables: how far each is, what waits, what failed, what it costs.",
    ),
    "detach": Listed(
        "evervec.cli.commands.attach:detach",
        TEXT,
        "Detach a table: leave no trigger, function, document or vector behind. The table itself is not touched.",
    ),
    "adopt": Listed(
        "evervec.cli.commands.adopt:adopt",
        TEXT,
        "Use the vectors that a table has already: check a sample against the model, and embed only the other rows.",
    ),
    "watch": Listed(
        "evervec.cli.commands.ingest.watch:watch",
        TEXT,
        "Index files and folders, and from then on what changes in them, until Ctrl-C. A worker embeds it.",
    ),
    "search": Listed(
        "evervec.cli.commands.search:search",
        TEXT,
        "Find the rows that answer a question best, by its meaning and its words.",
    ),
    "similar": Listed("evervec.cli.commands.search:similar", TEXT, "Find rows that say nearly the same as one row."),
    "row": Listed(
        "evervec.cli.commands.row:row",
        TEXT,
        "Show one row: its text, its vector in each space, the versions that it had, its neighbours.",
    ),
    "duplicates": Listed("evervec.cli.commands.search:duplicates", TEXT, "Find pairs of rows that say the same."),
    "status": Listed(
        "evervec.cli.commands.status:status",
        CARE,
        "Show coverage by dataset and kind, mirrors, extraction, provider and queue.",
    ),
    "runs": Listed(
        "evervec.cli.commands.index:runs",
        CARE,
        "List the index runs of a dataset, or of all: what each did, what it sent and saved, how it ended.",
    ),
    "plan": Listed(
        "evervec.cli.commands.plan:app",
        CARE,
        "Tell what embedding would take: rows, texts, tokens, requests, minutes and money. Nothing is sent or written.",
    ),
    "language": Listed(
        "evervec.cli.commands.language:language",
        CARE,
        "Show the language in which the words of a dataset are searched, or change it.",
    ),
    "budget": Listed("evervec.cli.commands.budget:app", CARE, "Limit what is sent to a provider, or for a dataset."),
    "spend": Listed(
        "evervec.cli.commands.spend:spend",
        CARE,
        "Show what was sent to providers, what it cost, and what was saved: by day, dataset, provider and reason.",
    ),
    "backfill": Listed(
        "evervec.cli.commands.backfill:backfill",
        CARE,
        "Embed whatever is missing or stale. Running it twice costs nothing the second time.",
    ),
    "spaces": Listed(
        "evervec.cli.commands.spaces:app",
        CARE,
        "Change models while everything runs: fill another space, search in it, go back, give it up.",
    ),
    "migrate": Listed(
        "evervec.cli.commands.serve:migrate",
        RUN,
        "Bring the database to this version's schema, and take in rows that no trigger saw. Safe to run again.",
    ),
    "uninstall": Listed(
        "evervec.cli.commands.uninstall:uninstall",
        RUN,
        "Remove everything that Evervec made in the database, with all texts and vectors, and nothing else.",
    ),
    "worker": Listed(
        "evervec.cli.commands.serve:worker",
        RUN,
        "Run tasks for all projects and datasets, also ones made later, until a signal.",
    ),
    "api": Listed(
        "evervec.cli.commands.serve:api", RUN, "Serve status and search over HTTP at EVERVEC_API_HOST:EVERVEC_API_PORT."
    ),
    "scheduler": Listed(
        "evervec.cli.commands.serve:scheduler",
        RUN,
        "Send the tasks that are due by the clock. One is enough; two do no harm.",
    ),
    "ingest": Listed("evervec.cli.commands.ingest.app:app", TEXT, "Take text in."),
    "batch": Listed(
        "evervec.cli.commands.batch:app",
        CARE,
        "Embed at half the price, within a day: batch jobs of Gemini and OpenAI.",
    ),
    "mirror": Listed(
        "evervec.cli.commands.mirror:app",
        CARE,
        "Mirrors: the copies in memory and on disk that hot searches are answered from.",
    ),
    "failed": Listed("evervec.cli.commands.failed:app", CARE, "See what was given up, and why."),
    "queue": Listed("evervec.cli.commands.queue:app", CARE, "See the tasks that could not be run, and run them again."),
    "providers": Listed("evervec.cli.commands.providers:app", CARE, "Choose who embeds and extracts."),
}

app = typer.Typer(
    name="evervec",
    cls=lazy_group(COMMANDS),
    help="Keeps the text in PostgreSQL embedded and searchable. Every row embedded, every mirror true.",
    epilog="Start with `evervec demo`. Each command explains itself: `evervec search --help`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_and_exit(wanted: bool) -> None:
    if wanted:
        from evervec.cli.commands.version import version

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
