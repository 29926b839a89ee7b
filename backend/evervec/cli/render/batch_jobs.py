"""Batch jobs for people and programs: one as a document, several as a table, what a flush sent, what a poll collected."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evervec.cli.render.runs import UNKNOWN, counted, money
from evervec.cli.terminal import output
from evervec.domain.batch import JobStatus, JobType
from evervec.pipeline.batch.flush import FlushResult
from evervec.pipeline.batch.poll import PollResult
from evervec.store.batch.batch_jobs import BatchJobRecord

SHORT = 18
"""Digits of an id that tell a job from all others; the first eight are the same for every job of a database."""

LOST = (JobStatus.CREATED, JobStatus.FAILED)
"""How a job looks right after a flush when the provider did not answer, or refused it."""


def job_document(job: BatchJobRecord) -> dict[str, Any]:
    """Return a job for JSON; `cost_usd` by its estimated tokens, None where the provider has no price."""
    shown: dict[str, Any] = asdict(job)
    stats: dict[str, int] = shown.pop("stats")
    named = {"id": str(job.id), "provider_id": None if job.provider_id is None else str(job.provider_id)}
    return shown | named | stats | {"cost_usd": job.cost_usd}


def flush_document(flushed: FlushResult, *, dry: bool) -> dict[str, Any]:
    """Return a flush for JSON."""
    return asdict(flushed) | {"jobs": [job_document(job) for job in flushed.jobs], "dry_run": dry}


def poll_document(poll: PollResult) -> dict[str, Any]:
    """Return the result of a poll for JSON."""
    jobs = {"jobs": [job_document(job) for job in poll.jobs], "again": [job_document(job) for job in poll.again]}
    return asdict(poll) | jobs


def show_jobs(jobs: Sequence[BatchJobRecord]) -> None:
    """Print jobs as a table, with the reasons of those that failed."""
    columns = ("job", "status", "rows", "ready", "failed", "cost", "created")
    output.table(columns, [_row(job) for job in jobs])
    for job in jobs:
        if job.error:
            output.echo(f"{short(job)}: {job.error}", style="yellow")


def _row(job: BatchJobRecord) -> tuple[object, ...]:
    stats = job.stats
    created = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
    return short(job), str(job.status), stats["rows"], stats["ready"], stats["failed"], money(job.cost_usd), created


def short(job: BatchJobRecord) -> str:
    """Return as much of a job's id as `batch show` and `batch cancel` need."""
    return str(job.id)[:SHORT]


def show_job(job: BatchJobRecord) -> None:
    """Print everything about one job."""
    output.echo(f"{job.id}  {job.status}", style="bold")
    for name, value in _lines(job):
        output.echo(f"{name:<9} {value}", indent=2)


def _lines(job: BatchJobRecord) -> list[tuple[str, str]]:
    stats = job.stats
    still = stats["rows"] - sum(stats[name] for name in ("ready", "failed", "dropped", "returned"))
    lines = [
        ("type", f"{job.job_type}, by {job.model}"),
        ("provider", f"calls it {job.external_id or UNKNOWN}" + (f", last said {job.said}" if job.said else "")),
        ("sent", f"{counted(stats['texts'], 'text')}, {counted(stats['tokens'], 'token')}, {stats['bytes']:,} bytes"),
        ("cost", money(job.cost_usd)),
        ("rows", f"{stats['rows']:,}: {outcome(stats)}, {still:,} without an answer"),
        ("times", ", ".join(f"{what} {at.astimezone():%Y-%m-%d %H:%M:%S}" for what, at in _times(job))),
    ]
    if stats["strays"]:
        lines.append(("strays", f"{counted(stats['strays'], 'line')} of the answer that nobody had asked for"))
    return [*lines, ("reason", job.error)] if job.error else lines


def _times(job: BatchJobRecord) -> list[tuple[str, Any]]:
    names = {
        "created": job.created_at,
        "submitted": job.submitted_at,
        "deadline": None if job.finished_at else job.deadline,
        "finished": job.finished_at,
        "cleaned": job.cleaned_at,
    }
    return [(what, at) for what, at in names.items() if at is not None]


def outcome(counts: Any) -> str:
    """Return what became of rows, of a job or of a poll."""
    return (
        f"{counts['ready']:,} ready, {counts['failed']:,} failed, {counts['dropped']:,} edited or gone meanwhile, "
        f"{counts['returned']:,} given back"
    )


def show_flush(flushed: FlushResult, *, dry: bool) -> None:
    """Print what a flush sent, or would send, what it costs, and what comes next."""
    if flushed.jobs:
        columns = ("job", "status", "rows", "texts", "tokens", "cost")
        output.table(columns, [_sent(job) for job in flushed.jobs])
        output.echo()
    output.echo(_planned(flushed) if dry else _flushed(flushed))
    if flushed.files_failed:
        output.error(
            f"{_files(flushed.files_failed)} could not be sent and are given up: docs/media.md says how to see why."
        )
    if flushed.reason is not None:
        left = flushed.waiting - (flushed.rows if dry else 0)
        reason = f"{flushed.reason.rstrip('.')}. Run this again later."
        output.info(f"{counted(left, 'row')} not sent: {reason}" if left else reason[0].upper() + reason[1:])
    if dry:
        output.info("Nothing was sent, nothing was changed.")
    elif any(job.status not in LOST for job in flushed.jobs):
        output.info("The provider takes up to a day. `evervec batch sync --wait` waits and takes the vectors in.")


def _sent(job: BatchJobRecord) -> tuple[object, ...]:
    stats = job.stats
    return short(job), str(job.status), stats["rows"], stats["texts"], stats["tokens"], money(job.cost_usd)


def _planned(flushed: FlushResult) -> str:
    if not flushed.rows and not flushed.files:
        return "Nothing would be sent." if flushed.waiting or flushed.files_waiting else "Nothing waits to be sent."
    jobs, tokens = counted(flushed.planned_jobs, "job"), counted(flushed.tokens, "token")
    return f"{_what(flushed)} for {jobs}, about {tokens}{price([flushed])}"


def _flushed(flushed: FlushResult) -> str:
    reused = f"; {counted(flushed.reused, 'row')} got the vector of an equal text" if flushed.reused else ""
    if not flushed.jobs:
        waits = flushed.waiting or flushed.files_waiting
        return f"Nothing was sent{reused}." if waits or reused else "Nothing waits to be sent."
    of = f"{counted(flushed.texts, 'text')}, {counted(flushed.tokens, 'token')}"
    return f"{_what(flushed)} in {counted(len(flushed.jobs), 'job')} ({of}){price([flushed])}{reused}"


def _what(flushed: FlushResult) -> str:
    what = [counted(flushed.rows, "row")] if flushed.rows or not flushed.files else []
    return " and ".join([*what, _files(flushed.files)] if flushed.files else what)


def _files(count: int) -> str:
    return "1 picture or sound" if count == 1 else f"{count:,} pictures and sounds"


def units(job: BatchJobRecord, count: int) -> str:
    """Return a number with what a job carries: rows, or pictures and sounds."""
    return _files(count) if job.job_type is JobType.MEDIA_DESCRIPTION else counted(count, "row")


def price(flushed: Sequence[FlushResult]) -> str:
    """Return `: $0.09 instead of $0.18` where the price is known and is not zero, else nothing."""
    deferred, online = (sum(getattr(one, name) or 0 for one in flushed) for name in ("deferred_usd", "online_usd"))
    return f": {money(deferred)} instead of {money(online)}" if deferred else ""


def show_poll(poll: PollResult) -> None:
    """Print what a poll collected, what is still open, and what comes next."""
    if poll.jobs:
        show_jobs(poll.jobs)
        output.echo()
    if not poll.jobs and not poll.busy and not poll.problems:
        output.echo("No batch job is open. Send what waits with `evervec batch flush`.")
    else:
        output.echo(f"{outcome(vars(poll))}; {_open(poll)}")
    if poll.again:
        rows = sum(job.stats["rows"] for job in poll.again)
        output.info(f"{counted(rows, 'row')} that came back without a vector were sent again, in smaller jobs.")
    if poll.copied:
        output.info(f"{counted(poll.copied, 'row')} got the vector of an equal text that a job brought.")
    if poll.online.success or poll.online.failed:
        output.info(
            f"{counted(poll.online.success, 'row')} embedded online that no job could do, "
            f"{poll.online.failed:,} failed there."
        )
    if poll.removed:
        output.info(f"{counted(poll.removed, 'leftover')} of an earlier crash removed at the provider.")
    _advise(poll)


def _open(poll: PollResult) -> str:
    said = f"{counted(still_open(poll), 'job')} still open"
    return f"{said}, {poll.busy:,} of them polled by another process" if poll.busy else said


def still_open(poll: PollResult) -> int:
    """Count the jobs that are to be waited for after a poll."""
    return poll.running + poll.busy + sum(job.finished_at is None for job in poll.again)


def failed_rows(poll: PollResult) -> int:
    """Count the rows that a poll gave up."""
    return poll.failed + poll.online.failed


def _advise(poll: PollResult) -> None:
    for problem in poll.problems:
        output.error(f"{problem} Nothing is lost: `evervec batch sync` tries it again.")
    if failed_rows(poll):
        output.info("See the failed rows and why with `evervec failed list`.")
    if still_open(poll):
        output.info("Wait for the rest with `evervec batch sync --wait`.")
