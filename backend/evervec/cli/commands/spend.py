"""`evervec spend`: what was sent to providers, what it cost, and what was saved."""

import csv
import sys
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Annotated

import typer

from evervec.cli.render.runs import money
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json
from evervec.cli.terminal.run import call
from evervec.domain.spending import COUNTS
from evervec.pipeline.budget import spending
from evervec.pipeline.budget.spending import SpendReport
from evervec.pipeline.resources import Resources
from evervec.store.budget.ledger import GROUPS, SpendLine

NAMES = ("day", "provider", "model", "project", "dataset", "reason")

By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="WORD", help=f"Sum up by {', '.join(GROUPS)}; give it several times for several."),
]
Since = Annotated[
    datetime | None,
    typer.Option(metavar="DAY", formats=["%Y-%m-%d"], help="From this day on (UTC), for example 2026-11-01."),
]
Days = Annotated[int | None, typer.Option(metavar="N", min=1, help="The last N days alone, today among them.")]
AsCsv = Annotated[bool, typer.Option("--csv", metavar="", help="Print comma-separated values, with a line of names.")]


def spend(
    by: By = None,
    since: Since = None,
    days: Days = None,
    dataset: Dataset = None,
    as_csv: AsCsv = False,
    as_json: Json = False,
) -> None:
    """Show what was sent to providers, what it cost, and what was saved: by day, dataset, provider and reason."""

    async def run(resources: Resources) -> SpendReport:
        begin = None if since is None else since.date()
        if days is not None:
            begin = await _today(resources) - timedelta(days=days - 1)
        return await spending.report(
            resources, by or ["day", "provider", "dataset", "reason"], since=begin, dataset=dataset
        )

    report = call(run, sends=False)
    if as_json:
        output.document(report)
    elif as_csv:
        _print_csv(report)
    else:
        _show(report)


async def _today(resources: Resources) -> date:
    async with resources.database.read() as tx:
        return (await tx.now()).date()


def _print_csv(report: SpendReport) -> None:
    names = [name for name in NAMES if _grouped(report, name)]
    writer = csv.DictWriter(sys.stdout, [*names, *COUNTS], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in report.lines)


def _grouped(report: SpendReport, name: str) -> bool:
    return ("dataset" if name == "project" else name) in report.by


def _show(report: SpendReport) -> None:
    if not report.lines:
        output.echo("Nothing was sent to a provider" + (f" since {report.since}." if report.since else "."))
        return
    columns = (*report.by, "requests", "texts", "tokens", "cost", "reused", "saved")
    shown = [
        (
            *(_cell(line, name) for name in report.by),
            line.requests,
            line.texts,
            line.tokens,
            _cost(line),
            line.reused,
            money(line.saved_usd),
        )
        for line in report.lines
    ]
    output.table(columns, shown)
    total = report.total
    output.echo()
    output.echo(
        f"{total.requests:,} requests, {total.texts:,} texts, {total.tokens:,} tokens: {_cost(total)}; "
        f"{total.reused:,} rows reused a vector, {total.unchanged:,} chunks were left as they are: {money(total.saved_usd)} saved"
    )
    if total.unpriced_tokens:
        output.info(
            f"{total.unpriced_tokens:,} tokens have no price: give it with `evervec providers add NAME --price`."
        )


def _cell(line: SpendLine, name: str) -> str:
    if name == "dataset":
        return f"{line.project}/{line.dataset}" if line.dataset else "-"
    return str(getattr(line, name))


def _cost(line: SpendLine) -> str:
    return "unknown" if line.unpriced_tokens and not line.usd else money(line.usd)
