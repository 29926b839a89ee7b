"""`evervec backfill`: fills every missing and every stale embedding. `scripts/backfill_embeddings.py` is this too."""

from dataclasses import asdict
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Dataset, Json, Kind
from evervec.cli.run import call
from evervec.pipeline import backfill as filling
from evervec.pipeline.resources import Resources

Batch = Annotated[int | None, typer.Option(metavar="N", min=1, max=4096, help="Rows claimed at a time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Count by kind and dataset; change nothing.")]


def backfill(
    dataset: Dataset = None, kind: Kind = None, batch_size: Batch = None, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Embed whatever is missing or stale. Running it twice costs nothing the second time."""

    async def run(resources: Resources) -> tuple[filling.Report, str | None]:
        planned = await filling.plan(resources, dataset=dataset, kind=kind)
        if dry_run:
            return planned, None
        provider = await resources.provider()
        output.note(f"{planned.pending:,} rows to embed with {provider.name} ({provider.model})")
        with output.progress("rows", planned.pending) as step:
            report = await filling.run(resources, dataset=dataset, kind=kind, batch=batch_size, progress=step)
        rests = await resources.provider()
        return report, rests.pause_error if rests.paused_seconds > 0 else None

    report, rest = call(run)
    if as_json:
        output.document(asdict(report))
    else:
        _show(report, dry_run)
    if dry_run:
        return
    _advise(report, rest)
    if report.failed or report.pending:
        raise typer.Exit(1)


def _show(report: filling.Report, dry_run: bool) -> None:
    if report.shares:
        rows = [(f"{s.project}/{s.dataset}", s.kind, s.pending) for s in report.shares]
        output.table(("dataset", "kind", "would embed" if dry_run else "still waiting"), rows)
        output.say()
    if dry_run:
        output.say(f"{report.pending:,} rows would be embedded. Nothing was changed.")
        return
    output.say(
        f"{report.embedded:,} rows embedded ({report.sent:,} texts sent, {report.reused:,} reused), "
        f"{report.failed:,} failed, in {report.seconds:.1f} s"
    )


def _advise(report: filling.Report, rest: str | None) -> None:
    if report.failed:
        output.note("See the failed ones with `evervec failed list`.")
    if report.pending and rest is not None:
        output.error(f"{report.pending:,} rows still wait: {rest} See `evervec status`, then run this again.")
    elif report.pending:
        output.note(f"{report.pending:,} rows still wait: a worker holds them, or they are tried again in a while.")
