"""`evervec ingest telegram`: a Telegram Desktop export becomes the messages of a dataset."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from evervec.cli.render.batch_option import Batch, PlannedBatch, pending_document, planned_batch, show_pending
from evervec.cli.render.pending import show_pending_work
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json
from evervec.cli.terminal.run import call
from evervec.domain.naming import slug
from evervec.errors import ExportError
from evervec.pipeline.indexing import requests
from evervec.pipeline.ingest import telegram as messages
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.pending import PendingWork, pending_work

Export = Annotated[
    Path, typer.Argument(metavar="PATH", help="A Telegram Desktop export: result.json of a chat or of an account.")
]


def telegram(
    path: Export,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project, made if it is new.")] = "telegram",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset, made if it is new.")] = "messages",
    batch: Batch = False,
    as_json: Json = False,
) -> None:
    """Import a Telegram Desktop export. Importing it again changes nothing; an edited message is embedded again."""

    async def run(resources: Resources) -> tuple[messages.ImportReport, PendingWork, PlannedBatch | None]:
        report = messages.ImportReport()
        try:
            with output.progress("messages") as step:
                await messages.import_telegram(
                    resources, path, project, dataset, report=report, progress=step, deferred=batch
                )
        except (ExportError, asyncio.CancelledError):
            if report != messages.ImportReport():
                _show_interrupted(report)
            raise
        work = await pending_work(resources, project, dataset)
        return report, work, await _planned(resources, project, dataset) if batch else None

    report, work, planned = call(run, queue=True)
    if as_json:
        output.document(vars(report) | vars(work) | ({} if planned is None else pending_document(planned)))
    else:
        output.echo(_counts(report))
    _list_rejected(report)
    if planned is None:
        show_pending_work(work)
        return
    show_pending(planned)
    if work.unread and not work.worker_listens:
        output.info(f"{work.unread:,} messages wait to be scored and extracted: `{work.run}` does that.")


async def _planned(resources: Resources, project: str, dataset: str) -> PlannedBatch:
    target = await requests.dataset(resources.database, f"{slug('Project', project)}/{slug('Dataset', dataset)}")
    return await planned_batch(resources, [target])


def _counts(report: messages.ImportReport) -> str:
    return (
        f"{report.created:,} new, {report.changed:,} changed, {report.unchanged:,} the same, "
        f"{report.skipped:,} service messages skipped, {report.rejections:,} rejected"
    )


def _show_interrupted(report: messages.ImportReport) -> None:
    output.info(f"Stored so far: {_counts(report)}")
    _list_rejected(report)


def _list_rejected(report: messages.ImportReport) -> None:
    for rejected in report.rejected:
        output.info(f"rejected {rejected.place}: {rejected.reason}", indent=2)
    if report.rejections > len(report.rejected):
        output.info(f"… and {report.rejections - len(report.rejected):,} more", indent=2)
