"""`evervec row`: all that is known of one row."""

from typing import Annotated

import typer

from evervec.cli.commands.search import RowId, RowKind, location
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json
from evervec.cli.terminal.run import call
from evervec.pipeline.status import row as rows
from evervec.pipeline.status.row import RowReport

Neighbours = Annotated[int, typer.Option("--limit", "-k", metavar="N", min=0, max=1000, help="How many neighbours.")]


def row(kind: RowKind, row_id: RowId, k: Neighbours = 5, as_json: Json = False) -> None:
    """Show one row: its text, its vector in each space, the versions that it had, its neighbours."""
    report = call(lambda resources: rows.one(resources, kind, row_id, k=k))
    if as_json:
        output.document(report)
    else:
        _show(report)


def _show(report: RowReport) -> None:
    hit = report.row
    place = f", {location(hit.place)}" if hit.place else ""
    said = f", {hit.origin.author} in {hit.origin.chat}, {hit.origin.sent_at:%Y-%m-%d %H:%M}" if hit.origin else ""
    output.echo(f"{hit.kind} {hit.id}, {report.project}/{hit.dataset}{place}{said}", style="bold")
    output.echo(hit.text.rstrip())
    output.echo()
    names = ("space", "model", "searched", "state", "embedded", "digest")
    output.table(
        names,
        [
            (
                str(one.space_id),
                f"{one.provider}/{one.model}",
                "yes" if one.searched else "",
                f"{one.state}: {one.reason}" if one.reason else one.state,
                f"{one.embedded_at:%Y-%m-%d %H:%M:%S}" if one.embedded_at else "",
                (one.content_hash or "")[:12],
            )
            for one in report.records
        ],
    )
    if len(report.versions) > 1:
        output.echo()
        versions = [(str(one.version), f"{one.created_at:%Y-%m-%d %H:%M}", one.text) for one in report.versions]
        output.table(("version", "written", "text"), versions)
    if report.neighbours:
        output.echo()
        near = [(one.score, str(one.id), one.dataset, one.text) for one in report.neighbours]
        output.table(("score", "id", "dataset", "text"), near)
