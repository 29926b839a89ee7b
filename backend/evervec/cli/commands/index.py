"""`evervec index` and `evervec runs`: index datasets from their sources, list what the runs did."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from evervec.cli.render.pending import show_pending_rows
from evervec.cli.render.runs import UNKNOWN, counted, show_run
from evervec.cli.terminal import output
from evervec.cli.terminal.options import AllowEmpty, Json
from evervec.cli.terminal.run import call
from evervec.errors import Refused
from evervec.pipeline.indexing import requests as indexing
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import runs as index_runs
from evervec.pipeline.status.pending import PendingRows, pending_rows
from evervec.pipeline.status.run_report import run_report
from evervec.store.datasets import DatasetRef
from evervec.store.runs import RunRecord

TRIGGER = "cli"
COLUMNS = ("at", "mode", "state", "docs", "chunks", "sent", "saved", "seconds", "dataset")

Name = Annotated[str | None, typer.Argument(metavar="DATASET", help="A dataset: name, project/name or uuid.")]
Every = Annotated[bool, typer.Option("--all", metavar="", help="Every dataset that has a source.")]
Full = Annotated[
    bool, typer.Option("--full", metavar="", help="Compare everything, and delete what the source no longer has.")
]
Changed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TABLE=ID,ID", help="Only these records; TABLE=- for ids on stdin, one a line. A file's TABLE is files."
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", metavar="", help="Do it here, or leave it to the workers.")]
Most = Annotated[int, typer.Option("--limit", "-k", metavar="N", min=1, max=200, help="How many at most.")]

Done = tuple[DatasetRef, RunRecord]


def index(
    dataset: Name = None,
    every: Every = False,
    full: Full = False,
    changed: Changed = None,
    allow_empty: AllowEmpty = False,
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Index a dataset from its source: chunk and embed what changed, leave the rest as it is."""
    if every == (dataset is not None):
        raise typer.BadParameter("Give a DATASET, or --all.")
    if changed and (every or full):
        raise typer.BadParameter("--changed goes with one DATASET, and without --full.")
    if allow_empty and (every or not wait):
        raise typer.BadParameter("--allow-empty goes with one DATASET that is indexed here.")
    if dataset is None:
        _index_all(full=full, wait=wait, as_json=as_json)
    else:
        _index_one(dataset, full=full, changed=changed, allow_empty=allow_empty, wait=wait, as_json=as_json)


def _index_one(
    name: str, *, full: bool, changed: Sequence[str] | None, allow_empty: bool, wait: bool, as_json: bool
) -> None:
    async def run(resources: Resources) -> tuple[Done, PendingRows]:
        request = RunRequest(_changed_ids(changed), full, trigger=TRIGGER)
        target = await indexing.dataset(resources.database, name)
        if not wait:
            run_id = await indexing.start(resources, target.id, request)
            return (target, await index_runs.one(resources, run_id)), await pending_rows(resources, [target])
        with output.progress("documents") as step:
            done = await indexing.index(resources, target.id, request, RunOptions(allow_empty=allow_empty), step)
        return (target, done), await pending_rows(resources, [target])

    (target, done), waiting = call(run, queue=True)
    if as_json:
        output.document(_document(target, done) | {"pending": waiting.pending})
    elif not wait:
        output.echo(f"Run {done.id} of {_name(target)} waits for a worker: see `evervec runs {_name(target)}`.")
    else:
        show_run(run_report(done))
        show_pending_rows(waiting)


def _index_all(*, full: bool, wait: bool, as_json: bool) -> None:
    async def run(resources: Resources) -> tuple[list[Done], PendingRows]:
        datasets = await index_runs.with_source(resources.database)
        asked = await indexing.index_all_datasets(resources, full, trigger=TRIGGER)
        done: list[Done] = []
        with output.progress("datasets", len(asked)) as step:
            for run_id in asked:
                found = await (index_runs.follow if wait else index_runs.one)(resources, run_id)
                done += [(one, found) for one in datasets if one.id == found.dataset_id]
                step(1)
        return done, await pending_rows(resources, datasets)

    done, waiting = call(run, queue=True)
    if as_json:
        output.document({"datasets": [_document(*one) for one in done], "pending": waiting.pending})
    else:
        _show(done)
        show_pending_rows(waiting)
    _fail_for(done)


def runs(dataset: Name = None, k: Most = 20, as_json: Json = False) -> None:
    """List the index runs of a dataset, or of all: what each did, what it sent and saved, how it ended."""
    found = call(lambda r: index_runs.recent(r.database, dataset, limit=k))
    if as_json:
        output.document({"runs": [_document(*one) for one in found]})
    elif found:
        _show(found)
    else:
        output.echo("No run yet. Start with `evervec ingest files PATH` or `evervec ingest sql SOURCE.yaml`.")


def _document(dataset: DatasetRef, run: RunRecord) -> dict[str, Any]:
    return {"project": dataset.project, "dataset": dataset.slug} | vars(run_report(run))


def _show(done: Sequence[Done]) -> None:
    if not done:
        output.echo("No dataset has a source. Give one with `evervec ingest files` or `evervec ingest sql`.")
        return
    output.table(COLUMNS, [_row(*one) for one in done])
    for dataset, run in done:
        if run.error:
            output.echo(f"{_name(dataset)}, {run.mode}: {run.error}", style="yellow")


def _row(dataset: DatasetRef, run: RunRecord) -> tuple[object, ...]:
    found = run_report(run)
    return (
        _at(run),
        run.mode,
        run.state,
        found.documents.written,
        found.chunks.written,
        found.texts_sent,
        UNKNOWN if found.saved is None else f"{found.saved.texts:,}",
        run.seconds.total,
        f"{_name(dataset)} ({run.trigger})",
    )


def _at(run: RunRecord) -> str:
    """Return the time of a run of today, else its day."""
    began = (run.started_at or run.created_at).astimezone()
    today = datetime.now(began.tzinfo).date()
    return f"{began:%H:%M:%S}" if began.date() == today else f"{began:%Y-%m-%d}"


def _name(dataset: DatasetRef) -> str:
    return f"{dataset.project}/{dataset.slug}"


def _fail_for(done: Sequence[Done]) -> None:
    """Exit with 1 when a run failed or has to be tried again."""
    bad = sum(1 for _, run in done if run.error)
    if bad:
        output.error(f"{counted(bad, 'run')} did not finish. See `evervec runs`.")
        raise typer.Exit(1)


def _changed_ids(given: Sequence[str] | None) -> dict[str, list[str | int]] | None:
    """Parse `TABLE=ID,ID` into ids by table. Raises `Refused` for anything else, and where no id is named."""
    if not given:
        return None
    found: dict[str, list[str | int]] = {}
    for one in given:
        table, equals, listed = one.partition("=")
        ids = [line for line in sys.stdin.read().splitlines() if line] if listed == "-" else listed.split(",")
        if not (table and equals and ids and all(ids)):
            raise Refused(reason=f"--changed: {one[:80]!r} is not TABLE=ID,ID. Give for example orders=17,23.")
        found.setdefault(table, []).extend(ids)
    return found
