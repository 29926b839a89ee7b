"""`evervec ingest files`: files and folders become the documents of a dataset."""

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from evervec.cli.render.batch_option import Batch, PlannedBatch, pending_document, show_pending, still_pending
from evervec.cli.render.runs import show_run
from evervec.cli.terminal import output
from evervec.cli.terminal.options import AllowEmpty, DryRun, Exclude, Include, Json
from evervec.cli.terminal.run import call
from evervec.errors import Refused
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.run import RunOptions
from evervec.pipeline.indexing.source_registry import FileSelection
from evervec.pipeline.ingest.files import ingest_files
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.pending import PendingRows
from evervec.pipeline.status.run_report import run_report
from evervec.settings import Settings
from evervec.store.runs import RunRecord

MEGABYTE = 1_000_000

Paths = Annotated[list[str], typer.Argument(metavar="PATH", help="Folders and files.", show_default=False)]
MaxMb = Annotated[
    float | None, typer.Option(metavar="N", help="The largest file in MB; EVERVEC_FILE_MB (20) if not given.")
]
Checksum = Annotated[
    bool, typer.Option("--checksum", metavar="", help="Read every file again, whatever its time and size say.")
]
Embed = Annotated[
    bool, typer.Option("--embed/--no-embed", metavar="", help="Embed here and now, or leave it to the workers.")
]


def files(
    paths: Paths,
    project: Annotated[str, typer.Option(metavar="NAME", help="The project, made if it is new.")] = "files",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset, made if it is new.")] = "documents",
    include: Include = None,
    exclude: Exclude = None,
    max_mb: MaxMb = None,
    checksum: Checksum = False,
    embed: Embed = True,
    batch: Batch = False,
    allow_empty: AllowEmpty = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Chunk, embed and index files and folders. A second time only what changed costs; what is gone is deleted."""
    options = RunOptions(checksum=checksum, dry=dry_run, allow_empty=allow_empty)

    async def run(resources: Resources) -> tuple[RunRecord, str, str, PendingRows | PlannedBatch]:
        wanted = chosen(resources.settings, paths, include, exclude, max_mb)
        with output.progress("files") as step:
            done = await ingest_files(
                resources, project, dataset, wanted, options, embeds=embed, deferred=batch, progress=step
            )
        if dry_run or done.state == "cancelled":
            return done, project, dataset, PendingRows(0)
        target = await requests.dataset(resources.database, str(done.dataset_id))
        return done, target.project, target.slug, await still_pending(resources, [target], batch=batch)

    _answer(*call(run, queue=True), dry=dry_run, as_json=as_json)


def _answer(
    done: RunRecord, project: str, dataset: str, rest: PendingRows | PlannedBatch, *, dry: bool, as_json: bool
) -> None:
    found = run_report(done)
    if as_json:
        named = {"project": project, "dataset": dataset, "dry_run": dry}
        planned = {"run": None, "full": None} if dry else {}
        output.document(named | vars(found) | planned | pending_document(rest))
        return
    show_run(found, dry=dry)
    show_pending(rest)
    if dry:
        output.info("Nothing was changed.")
    elif done.state == "cancelled":
        output.info(f"Dataset {dataset!r} was deleted meanwhile, and all of this with it.")
    elif done.counts.full_texts and isinstance(rest, PendingRows):
        output.info(f'Search it with `evervec search "…" --dataset {dataset}`.')


def chosen(
    settings: Settings, paths: list[str], include: list[str] | None, exclude: list[str] | None, max_mb: float | None
) -> FileSelection:
    """Return the files that the options name. Raises `Refused` for an empty path and an invalid size."""
    most = settings.file_mb if max_mb is None else max_mb
    return FileSelection(_paths(paths), include or (), exclude or (), _bytes(most))


def _paths(given: list[str]) -> list[Path]:
    """Return the paths to index. Raises `Refused` for an empty one, which would be the current folder."""
    if not all(given):
        raise Refused(reason="A PATH is empty. Give a file or folder; the current folder is `.`.")
    return [Path(one) for one in given]


def _bytes(megabytes: float) -> int:
    if not isfinite(megabytes) or megabytes <= 0:
        raise Refused(reason=f"--max-mb is {megabytes}. Give the size of the largest file in MB, for example 20.")
    return int(megabytes * MEGABYTE)
