"""`evervec ingest sql`: what changed in tables since the last time becomes documents of datasets."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from evervec.cli.render.batch_option import Batch, PlannedBatch, pending_document, show_pending, still_pending
from evervec.cli.render.runs import counted, money, show_skipped
from evervec.cli.terminal import output
from evervec.cli.terminal.options import DryRun, Json
from evervec.cli.terminal.run import call
from evervec.pipeline.indexing import requests
from evervec.pipeline.ingest.sql import DatasetChanges, SourceSync, look, sync
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import runs
from evervec.pipeline.status.pending import PendingRows
from evervec.pipeline.status.run_report import run_report
from evervec.sources.sql import loading
from evervec.sources.sql.description import SourceDescription
from evervec.store.runs import RunRecord

Yaml = Annotated[Path, typer.Argument(metavar="SOURCE.yaml", help="What the tables are and how a row becomes text.")]
Full = Annotated[
    bool,
    typer.Option(
        "--full", metavar="", help="Rebuild every dataset of the source: compare everything, delete what is gone."
    ),
]
Index = Annotated[
    bool, typer.Option("--index/--no-index", metavar="", help="Index here and now, or leave it to the workers.")
]

Indexed = tuple[SourceSync, list[RunRecord | None], PendingRows | PlannedBatch]


def sql(
    path: Yaml,
    full: Full = False,
    work: Index = True,
    batch: Batch = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find what changed in the tables of a source since the last time, and index that."""

    async def run(resources: Resources) -> Indexed:
        description = loading.load(path, os.environ)
        if dry_run:
            synced = await look(resources.database, description, full=full)
            return synced, [None for _ in synced.datasets], PendingRows(0)
        return await _sync(resources, description, full=full, work=work, batch=batch)

    synced, done, rest = call(run, queue=True)
    for warning in synced.warnings:
        output.info(warning)
    if as_json:
        output.document(_document(synced, done, rest, dry_run))
    else:
        _show(synced, done, dry_run)
        show_pending(rest)
    _fail_for(synced, done)


async def _sync(
    resources: Resources, description: SourceDescription, *, full: bool, work: bool, batch: bool
) -> Indexed:
    with output.waiting("looking for changes"):
        synced = await sync(resources, description, full=full, deferred=batch)
    done: list[RunRecord | None] = []
    with output.progress("datasets", len(synced.datasets)) as step:
        for one in synced.datasets:
            done.append(await _run_of(resources, one, work=work))
            step(1)
    datasets = [await requests.dataset(resources.database, str(one.dataset_id)) for one in synced.datasets]
    return synced, done, await still_pending(resources, datasets, batch=batch)


async def _run_of(resources: Resources, one: DatasetChanges, *, work: bool) -> RunRecord | None:
    if one.run_id is None:
        return None
    return await (runs.follow if work else runs.one)(resources, one.run_id)


def _document(
    synced: SourceSync, done: list[RunRecord | None], rest: PendingRows | PlannedBatch, dry: bool
) -> dict[str, Any]:
    return {
        "source": synced.source,
        "since": synced.since,
        "dry_run": dry,
        "warnings": synced.warnings,
        "changed_ids": synced.changed_ids,
        "datasets": [
            {"project": one.project, "dataset": one.dataset, "changed_ids": one.changed_ids}
            | ({} if run is None else vars(run_report(run)))
            for one, run in zip(synced.datasets, done, strict=True)
        ],
    } | pending_document(rest)


def _show(synced: SourceSync, done: list[RunRecord | None], dry: bool) -> None:
    since = "" if synced.since is None else f" since {synced.since.astimezone():%Y-%m-%d %H:%M:%S}"
    if not synced.datasets:
        output.echo(f"Nothing changed in {synced.source}{since}.")
        return
    changed = sum(map(len, synced.changed_ids.values()))
    output.echo(f"{counted(changed, 'record')} of {synced.source} changed{since}")
    if any(run is None or run.state == "queued" for run in done):
        output.table(("dataset", "changed"), [(_name(one), _changed(one)) for one in synced.datasets])
        output.info("Nothing was done." if dry else "The workers index it: see `evervec runs`.")
        return
    rows = [_row(one, run) for one, run in zip(synced.datasets, done, strict=True) if run is not None]
    output.table(("dataset", "state", "documents", "chunks", "sent", "seconds", "cost", "changed"), rows)
    for run in done:
        if run is not None:
            show_skipped(run_report(run))


def _row(one: DatasetChanges, run: RunRecord) -> tuple[object, ...]:
    found = run_report(run)
    return (
        _name(one),
        run.state,
        found.documents.written,
        found.chunks.written,
        run.counts.texts_sent,
        round(run.seconds.total, 1),
        money(run.cost_usd),
        _changed(one),
    )


def _name(one: DatasetChanges) -> str:
    return f"{one.project}/{one.dataset}"


def _changed(one: DatasetChanges) -> str:
    return ", ".join(f"{table} {len(ids):,}" for table, ids in one.changed_ids.items()) or "nothing"


def _fail_for(synced: SourceSync, done: list[RunRecord | None]) -> None:
    """Exit with 1 when a run failed or has to be tried again."""
    bad = [(one, run) for one, run in zip(synced.datasets, done, strict=True) if run is not None and run.error]
    for one, run in bad:
        later = " It is tried again by itself." if run.state == "queued" else ""
        output.error(f"{_name(one)}: {run.error}{later}")
    if bad:
        raise typer.Exit(1)
