"""`evervec batch`: send what can wait to the provider's batch API at half the price, and collect its vectors."""

import asyncio
from collections.abc import Iterator
from itertools import count, repeat
from typing import Annotated

import typer

from evervec.cli.render.batch_jobs import (
    LOST,
    failed_rows,
    flush_document,
    job_document,
    poll_document,
    short,
    show_flush,
    show_job,
    show_jobs,
    show_poll,
    still_open,
    units,
)
from evervec.cli.render.runs import counted
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, DryRun, Json
from evervec.cli.terminal.run import call
from evervec.pipeline.batch.flush import FlushResult
from evervec.pipeline.batch.manager import BatchManager
from evervec.pipeline.batch.poll import PollResult
from evervec.pipeline.resources import Resources

FIRST_PAUSE, LAST_PAUSE = 30.0, 300.0
"""Seconds between two polls of `sync --wait`: at the beginning, and after some of them."""

app = typer.Typer(no_args_is_help=True)

Least = Annotated[int, typer.Option("--min-batch-size", metavar="N", min=1, help="Send no job of fewer rows.")]
Most = Annotated[
    int | None,
    typer.Option(
        "--max-batch-size", metavar="N", min=1, help="Send none of more; as many as the provider takes if not given."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", metavar="", help="Poll until no job is open.")]
Poll = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0.1, max=86_400, help="Between two polls; from 30 seconds to 5 minutes if not given."
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-k", metavar="N", min=1, max=1000, help="How many at most.")]
Job = Annotated[
    str, typer.Argument(metavar="JOB", help="Its id, the first digits of it, or the provider's name for it.")
]


@app.callback()
def group() -> None:
    """Embed at half the price, within a day: batch jobs of Gemini and OpenAI."""


@app.command()
def flush(
    min_batch_size: Least = 1,
    max_batch_size: Most = None,
    dataset: Dataset = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Send what waits to be embedded as batch jobs. Exits 1 when the provider refused a job, or did not answer, or files were given up."""

    async def run(resources: Resources) -> FlushResult:
        with output.progress("rows written down") as step:
            return await BatchManager(resources).flush_queue(
                min_batch_size, max_batch_size, dataset, dry_run=dry_run, progress=step
            )

    flushed = call(run)
    if as_json:
        output.document(flush_document(flushed, dry=dry_run))
    else:
        show_flush(flushed, dry=dry_run)
    if _lost(flushed):
        raise typer.Exit(1)


@app.command()
def sync(wait: Wait = False, poll: Poll = None, as_json: Json = False) -> None:
    """Poll the open jobs and collect the results. Exits 1 when rows failed, or the provider did not answer."""
    if poll is not None and not wait:
        raise typer.BadParameter("--poll goes with --wait.")

    async def run(resources: Resources) -> PollResult:
        manager = BatchManager(resources)
        if wait:
            with output.waiting("waiting for batch jobs"):
                return await _wait(manager, poll)
        with output.progress("jobs") as step:
            return await manager.check_and_sync(step)

    synced = call(run)
    if as_json:
        output.document(poll_document(synced))
    else:
        show_poll(synced)
    if not _holds(synced):
        raise typer.Exit(1)


@app.command()
def process(min_batch_size: Least = 1, max_batch_size: Most = None, as_json: Json = False) -> None:
    """Sync, then flush: the one command for a schedule of your own."""

    async def run(resources: Resources) -> tuple[FlushResult, PollResult]:
        with output.waiting("asking the provider"):
            return await BatchManager(resources).process_queue(min_batch_size, max_batch_size)

    flushed, synced = call(run)
    if as_json:
        output.document({"synced": poll_document(synced), "flushed": flush_document(flushed, dry=False)})
    else:
        show_poll(synced)
        show_flush(flushed, dry=False)
    if not _holds(synced) or _lost(flushed):
        raise typer.Exit(1)


@app.command("list")
def list_(k: Limit = 20, as_json: Json = False) -> None:
    """List the newest jobs, newest first."""
    found = call(lambda resources: BatchManager(resources).list(k))
    if as_json:
        output.document({"jobs": [job_document(job) for job in found]})
    elif found:
        show_jobs(found)
    else:
        output.echo("No batch job yet. Send what waits with `evervec batch flush`.")


@app.command()
def show(job: Job, as_json: Json = False) -> None:
    """Show everything about one job."""
    found = call(lambda resources: BatchManager(resources).get(job))
    output.document(job_document(found)) if as_json else show_job(found)


@app.command()
def cancel(job: Job, as_json: Json = False) -> None:
    """Cancel a job here and at the provider. Its rows wait again; its results until now are not collected."""
    found = call(lambda resources: BatchManager(resources).cancel(job))
    if as_json:
        output.document(job_document(found))
        return
    output.echo(f"{short(found)} is {found.status}: {units(found, found.stats['returned'])} wait again.")
    output.info("Send them again with `evervec batch flush`.")


async def _wait(manager: BatchManager, poll: float | None) -> PollResult:
    """Poll until no job is open; return all polls together, with the problems of the last one."""
    total, told = PollResult(), ""
    for seconds in _pauses(poll):
        found = await manager.check_and_sync()
        _add(total, found)
        if not still_open(found):
            return total
        said = f"{counted(still_open(found), 'job')} open, {total.ready:,} rows ready"
        if said != told:
            output.info(f"{said}; looking again in {seconds:.0f} s. Ctrl-C stops waiting, the jobs go on.")
        for problem in found.problems:
            output.info(problem)
        told = said
        await asyncio.sleep(seconds)
    raise AssertionError("there is always another pause")


def _pauses(poll: float | None) -> Iterator[float]:
    """Return the seconds until each next poll, without end."""
    return repeat(poll) if poll is not None else (min(FIRST_PAUSE * 2.0**n, LAST_PAUSE) for n in count())


def _add(total: PollResult, found: PollResult) -> None:
    """Add a poll to those before: a job as it was seen last, and what is still open as it is now."""
    for name in ("ready", "failed", "dropped", "returned", "copied", "removed"):
        setattr(total, name, getattr(total, name) + getattr(found, name))
    total.jobs = [*{job.id: job for job in (*total.jobs, *found.jobs)}.values()]
    total.again += found.again
    total.online.add(found.online)
    total.running, total.busy, total.problems = found.running, found.busy, found.problems


def _holds(synced: PollResult) -> bool:
    return not (synced.problems or failed_rows(synced))


def _lost(flushed: FlushResult) -> bool:
    return bool(flushed.files_failed) or any(job.status in LOST for job in flushed.jobs)
