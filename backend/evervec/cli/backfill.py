"""`evervec backfill`: fills every missing and every stale embedding. `scripts/backfill_embeddings.py` is this too."""

from dataclasses import asdict
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Dataset, Json, Kind
from evervec.cli.run import call
from evervec.errors import Refused
from evervec.pipeline import backfill as filling
from evervec.pipeline.resources import Resources
from evervec.store.embeddables import BY_NAME


def backfill(
    dataset: Dataset = None,
    kind: Kind = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=4096, help="Rows claimed at a time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count by kind and dataset; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Embed whatever is missing or stale. Running it twice costs nothing the second time."""

    async def run(resources: Resources) -> filling.Report:
        if kind is not None and kind not in BY_NAME:
            raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
        planned = await filling.plan(resources, dataset=dataset, kind=kind)
        if dry_run:
            return planned
        provider = await resources.provider()
        output.note(f"{planned.pending:,} rows to embed with {provider.name} ({provider.model})")
        with output.progress("rows", planned.pending) as step:
            return await filling.run(resources, dataset=dataset, kind=kind, batch=batch_size, progress=step)

    report = call(run)
    if as_json:
        output.document(asdict(report))
    else:
        _show(report, dry_run)
    if report.failed or (report.pending and not dry_run):
        raise typer.Exit(1)


def _show(report: filling.Report, dry_run: bool) -> None:
    if report.shares:
        rows = [(f"{s.project}/{s.dataset}", s.kind, s.pending) for s in report.shares]
        output.table("would embed" if dry_run else "still waiting", ("dataset", "kind", "rows"), rows)
    if dry_run:
        output.say(f"{report.pending:,} rows would be embedded. Nothing was changed.")
        return
    output.say(
        f"{report.embedded:,} rows embedded ({report.sent:,} texts sent, {report.reused:,} reused), "
        f"{report.failed:,} failed, in {report.seconds:.1f} s"
    )
    if report.failed:
        output.say("See the failed ones with `evervec failed list`.", style="yellow")
    if report.pending:
        output.say("The rest is held by a worker, or waits for the provider: see `evervec status`.", style="yellow")
