"""`evervec backfill`: fill every missing and every stale embedding. `scripts/backfill_embeddings.py` is the same."""

from typing import Annotated

import typer

from evervec.cli.render.runs import counted
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json, Kind
from evervec.cli.terminal.run import call
from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep import backfill as filling

BatchSize = Annotated[int | None, typer.Option(metavar="N", min=1, max=4096, help="Rows claimed at a time.")]
Way = Annotated[
    bool | None,
    typer.Option(
        "--batch/--online",
        "--deferred",
        metavar="",
        help="As batch jobs at half the price, or at once. By itself 500 rows or more go the first way, if there is one.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Count by kind and dataset; change nothing.")]


def backfill(
    dataset: Dataset = None,
    kind: Kind = None,
    batch_size: BatchSize = None,
    batch: Way = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Embed whatever is missing or stale. Running it twice costs nothing the second time."""

    async def run(resources: Resources) -> tuple[filling.BackfillReport, str | None]:
        planned = await filling.plan(resources, dataset=dataset, kind=kind)
        if dry_run:
            return planned, None
        providers = await filling.providers_of(resources, dataset=dataset)
        said = ", ".join(f"{one.name} ({one.model})" for one in providers)
        output.info(f"{planned.pending:,} rows to embed with {said}")
        with output.progress("rows", planned.pending) as step:
            report = await filling.run(
                resources, dataset=dataset, kind=kind, batch=batch_size, progress=step, deferred=batch
            )
        after = await filling.providers_of(resources, dataset=dataset)
        return report, next((one.breaker.error for one in after if one.breaker.is_open), None)

    report, pause = call(run)
    if as_json:
        output.document(report)
    else:
        _show(report, dry_run)
    if dry_run:
        return
    _advise(report, pause)
    if report.failed or report.reason is not None or _waiting(report):
        raise typer.Exit(1)


def _show(report: filling.BackfillReport, dry_run: bool) -> None:
    if report.shares and (dry_run or _waiting(report)):
        rows = [(f"{s.project}/{s.dataset}", s.kind, s.pending) for s in report.shares]
        output.table(("dataset", "kind", "would embed" if dry_run else "still waiting"), rows)
        output.echo()
    if dry_run:
        output.echo(f"{report.pending:,} rows would be embedded. Nothing was changed.")
        return
    if report.jobs:
        output.echo(
            f"{counted(report.deferred, 'row')} sent in {counted(len(report.jobs), 'batch job')}, {report.reused:,} reused, "
            f"in {report.seconds:.1f} s"
        )
        return
    output.echo(
        f"{report.embedded:,} rows embedded ({report.sent:,} texts sent, {report.reused:,} reused), "
        f"{report.failed:,} failed, in {report.seconds:.1f} s"
    )


def _advise(report: filling.BackfillReport, pause: str | None) -> None:
    if report.failed:
        output.info("See the failed ones with `evervec failed list`.")
    if report.jobs:
        output.info("Collect their vectors with `evervec batch sync --wait`.")
    waiting = _waiting(report)
    if report.reason is not None and report.closed:
        output.error(f"{waiting:,} rows still wait. {report.reason}")
    elif report.reason is not None:
        output.error(f"{waiting:,} rows still wait: {report.reason}. See `evervec batch list`, then run this again.")
    elif waiting and pause is not None:
        output.error(f"{waiting:,} rows still wait: {pause} See `evervec status`, then run this again.")
    elif waiting:
        output.info(
            f"{waiting:,} rows still wait: a worker or a batch job holds them, they wait for `evervec batch flush`, or are "
            "tried again in a while."
        )


def _waiting(report: filling.BackfillReport) -> int:
    """Return how many rows are neither embedded nor in a batch job that was just sent."""
    return max(0, report.pending - report.deferred)
