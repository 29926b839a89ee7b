"""`evervec ingest telegram`: a Telegram Desktop export becomes the messages of a dataset."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evervec.cli.render.batch_option import Deferred, Kept, kept, show_waiting, waiting_document
from evervec.cli.render.waiting import show_outlook
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json
from evervec.cli.terminal.run import call
from evervec.domain.naming import slug
from evervec.errors import ExportError
from evervec.pipeline.indexing import requests
from evervec.pipeline.ingest import telegram as messages
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.outlook import Outlook
from evervec.pipeline.status.outlook import outlook as find_outlook


def telegram(
    path: Annotated[Path, typer.Argument(help="A Telegram Desktop export: result.json of a chat or of an account.")],
    project: Annotated[str, typer.Option(metavar="NAME", help="The project, made if it is new.")] = "telegram",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset, made if it is new.")] = "messages",
    deferred: Deferred = False,
    as_json: Json = False,
) -> None:
    """Import a Telegram Desktop export. Importing it again changes nothing; an edited message is embedded again."""

    async def run(resources: Resources) -> tuple[messages.ImportReport, Outlook, Kept | None]:
        report = messages.ImportReport()
        try:
            with output.progress("messages") as step:
                await messages.import_telegram(
                    resources, path, project, dataset, report=report, progress=step, deferred=deferred
                )
        except (ExportError, asyncio.CancelledError):
            if report != messages.ImportReport():
                _note(report)
            raise
        outlook = await find_outlook(resources, project, dataset)
        return report, outlook, await _kept(resources, project, dataset) if deferred else None

    report, outlook, rest = call(run, queue=True)
    if as_json:
        output.document(asdict(report) | asdict(outlook) | ({} if rest is None else waiting_document(rest)))
    else:
        output.say(_counts(report))
    _list_rejected(report)
    if rest is None:
        show_outlook(outlook)
        return
    show_waiting(rest)
    if outlook.unread and not outlook.worker_listens:
        output.note(f"{outlook.unread:,} messages wait to be scored and extracted: `{outlook.run}` does that.")


async def _kept(resources: Resources, project: str, dataset: str) -> Kept:
    target = await requests.dataset(resources.database, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
    return await kept(resources, [target])


def _counts(report: messages.ImportReport) -> str:
    return (
        f"{report.created:,} new, {report.changed:,} changed, {report.unchanged:,} the same, "
        f"{report.skipped:,} service messages skipped, {report.rejections:,} rejected"
    )


def _note(report: messages.ImportReport) -> None:
    output.note(f"Kept so far: {_counts(report)}")
    _list_rejected(report)


def _list_rejected(report: messages.ImportReport) -> None:
    for rejected in report.rejected:
        output.note(f"rejected {rejected.place}: {rejected.reason}", indent=2)
    if report.rejections > len(report.rejected):
        output.note(f"… and {report.rejections - len(report.rejected):,} more", indent=2)
