"""`evervec ingest`: text comes in from its sources; files and tables have modules of their own."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evervec.cli import ingest_files, ingest_sql, output
from evervec.cli.options import Json
from evervec.cli.outlook import show_outlook
from evervec.cli.run import call
from evervec.errors import ExportError
from evervec.pipeline import ingest
from evervec.pipeline.resources import Resources

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Take text in."""


app.command("files")(ingest_files.files)
app.command("sql")(ingest_sql.sql)


@app.command()
def telegram(
    path: Annotated[Path, typer.Argument(help="A Telegram Desktop export: result.json of a chat or of an account.")],
    project: Annotated[str, typer.Option(metavar="NAME", help="The project, made if it is new.")] = "telegram",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset, made if it is new.")] = "messages",
    as_json: Json = False,
) -> None:
    """Import a Telegram Desktop export. Importing it again changes nothing; an edited message is embedded again."""

    async def run(resources: Resources) -> tuple[ingest.Report, ingest.Outlook]:
        report = ingest.Report()
        try:
            with output.progress("messages") as step:
                await ingest.import_telegram(resources, path, project, dataset, report=report, progress=step)
        except (ExportError, asyncio.CancelledError):
            if report != ingest.Report():
                _note(report)
            raise
        return report, await ingest.outlook(resources, project, dataset)

    report, outlook = call(run, queue=True)
    if as_json:
        output.document(asdict(report) | asdict(outlook))
    else:
        output.say(_counts(report))
    _list_rejected(report)
    show_outlook(outlook)


def _counts(report: ingest.Report) -> str:
    return (
        f"{report.created:,} new, {report.changed:,} changed, {report.unchanged:,} the same, "
        f"{report.skipped:,} service messages skipped, {report.rejections:,} rejected"
    )


def _note(report: ingest.Report) -> None:
    output.note(f"Kept so far: {_counts(report)}")
    _list_rejected(report)


def _list_rejected(report: ingest.Report) -> None:
    for rejected in report.rejected:
        output.note(f"rejected {rejected.place}: {rejected.reason}", indent=2)
    if report.rejections > len(report.rejected):
        output.note(f"… and {report.rejections - len(report.rejected):,} more", indent=2)
