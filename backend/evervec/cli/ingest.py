"""`evervec ingest`: text comes in from its sources."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Json
from evervec.cli.run import call
from evervec.pipeline import ingest
from evervec.pipeline.resources import Resources

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Take text in."""


@app.command()
def telegram(
    path: Annotated[Path, typer.Argument(help="A Telegram Desktop export: result.json of a chat or of an account.")],
    project: Annotated[str, typer.Option(help="The project, made if it is new.")] = "telegram",
    dataset: Annotated[str, typer.Option(help="The dataset, made if it is new.")] = "messages",
    as_json: Json = False,
) -> None:
    """Import a Telegram Desktop export. Importing it again changes nothing; an edited message is embedded again."""

    async def run(resources: Resources) -> ingest.Report:
        with output.progress("messages") as step:
            return await ingest.import_telegram(resources, path, project, dataset, progress=step)

    report = call(run)
    if as_json:
        output.document(asdict(report))
        return
    output.say(
        f"{report.created:,} new, {report.changed:,} changed, {report.unchanged:,} the same, "
        f"{report.skipped:,} service messages skipped, {report.rejections:,} rejected"
    )
    for rejected in report.rejected:
        output.note(f"  rejected {rejected.place}: {rejected.reason}")
    if report.rejections > len(report.rejected):
        output.note(f"  … and {report.rejections - len(report.rejected):,} more")
