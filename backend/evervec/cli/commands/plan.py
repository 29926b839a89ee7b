"""`evervec plan`: what embedding would take, before anything is sent."""

import os
from typing import Annotated

import typer

from evervec.cli.commands.ingest.files import MaxMb, Paths, chosen
from evervec.cli.commands.ingest.sql import Full, Yaml
from evervec.cli.commands.ingest.telegram import Export
from evervec.cli.commands.spaces import ChunkTokens, Provider, Template, template_of
from evervec.cli.render.runs import money
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Exclude, Include, Json, Kind
from evervec.cli.terminal.run import call
from evervec.pipeline.budget.planning import SendPlan
from evervec.pipeline.ingest import planned_ingest
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import planned_build
from evervec.pipeline.spaces.build import BuildOptions
from evervec.pipeline.upkeep import planned_backfill
from evervec.sources.sql import loading

app = typer.Typer(no_args_is_help=True)
ingest = typer.Typer(no_args_is_help=True)
app.add_typer(ingest, name="ingest")


@app.callback()
def group() -> None:
    """Tell what embedding would take: rows, texts, tokens, requests, minutes and money. Nothing is sent or written."""


@ingest.callback()
def ingest_group() -> None:
    """Plan to take text in: files and folders, tables of an SQL source, a chat."""


@app.command()
def backfill(dataset: Dataset = None, kind: Kind = None, as_json: Json = False) -> None:
    """Plan a backfill: every row whose vector is missing or stale."""
    _answer(call(lambda r: planned_backfill.plan(r, dataset=dataset, kind=kind), sends=False), as_json)


@ingest.command()
def files(
    paths: Paths,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project; it may be new.")] = "files",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset; it may be new.")] = "documents",
    include: Include = None,
    exclude: Exclude = None,
    max_mb: MaxMb = None,
    as_json: Json = False,
) -> None:
    """Plan to index files and folders: they are read and chunked, and compared with what is there."""

    async def run(resources: Resources) -> SendPlan:
        wanted = chosen(resources.settings, paths, include, exclude, max_mb)
        return await planned_ingest.of_files(resources, project, dataset, wanted)

    _answer(call(run, sends=False), as_json)


@ingest.command()
def sql(path: Yaml, full: Full = False, as_json: Json = False) -> None:
    """Plan a sync of an SQL source: what changed since the last one is read and chunked."""

    async def run(resources: Resources) -> SendPlan:
        return await planned_ingest.of_sql(resources, loading.load(path, os.environ), full=full)

    _answer(call(run, sends=False), as_json)


@ingest.command()
def telegram(
    path: Export,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project; it may be new.")] = "telegram",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset; it may be new.")] = "messages",
    as_json: Json = False,
) -> None:
    """Plan to import an export: its new and edited messages. What is extracted from them is not known before."""
    planned = call(lambda r: planned_ingest.of_telegram(r, path, project, dataset), sends=False)
    _answer(planned, as_json)


@app.command()
def build(
    provider: Provider,
    dataset: Dataset = None,
    template: Template = None,
    chunk_tokens: ChunkTokens = None,
    as_json: Json = False,
) -> None:
    """Plan to build another space: every row of the datasets that are not in it, and their documents chunked for it."""
    options = BuildOptions(provider, template_of(template), chunk_tokens)
    _answer(call(lambda r: planned_build.plan(r, options, dataset=dataset), sends=False), as_json)


def _answer(planned: SendPlan, as_json: bool) -> None:
    """Print a plan; exit with 1 if a ceiling would leave rows waiting."""
    if as_json:
        output.document(planned)
    else:
        _show(planned)
    for stop in planned.stops:
        output.error(f"It does not fit: {stop}. The rest would wait; raise it with `evervec budget set`.")
    if planned.stops:
        raise typer.Exit(1)


def _show(planned: SendPlan) -> None:
    output.echo(f"{planned.rows:,} rows with {planned.unique_texts:,} different texts")
    output.echo(f"{planned.reused:,} get the vector of an equal text", indent=2)
    output.echo(
        f"{planned.texts:,} texts are sent to {planned.provider} ({planned.model}): {planned.tokens:,} tokens in "
        f"{planned.requests:,} requests",
        indent=2,
    )
    minutes = "unknown until something was embedded" if planned.minutes is None else f"{planned.minutes:,.1f} minutes"
    output.echo(f"time: {minutes}", indent=2)
    batch = "" if planned.batch_usd is None else f", {money(planned.batch_usd)} as batch jobs"
    output.echo(f"cost: {money(planned.usd)}{batch}", indent=2)
