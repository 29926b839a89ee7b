"""OpenAI's batch jobs: created from a file, asked, listed and cancelled."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tests.fakes.batches import LimitPassed
from tests.fakes.jobs import ENDED, Job, Scan, State
from tests.fakes.openai_errors import refused
from tests.fakes.openai_files import listing, paged
from tests.fakes.openai_lines import parse, render, render_error
from tests.fakes.remote_files import RemoteFile
from tests.fakes.results import write
from tests.fakes.wire import Call, Reply

ENDPOINTS = ("/v1/embeddings", "/v1/chat/completions")
MOST = 50_000
WORDS = {
    State.PENDING: "validating",
    State.RUNNING: "in_progress",
    State.SUCCEEDED: "completed",
    State.UNKNOWN: "partially_completed",
}
WINDOW = timedelta(hours=24)


async def create(call: Call) -> Reply:
    """Create a job whose lines are in a file; errors in the lines are only reported by the job."""
    asked, batches = call.asked, call.fake.batches
    endpoint = asked.get("endpoint")
    if endpoint not in ENDPOINTS:
        raise refused(400, f"Invalid value: '{endpoint}'.", "invalid_value", param="endpoint")
    if asked.get("completion_window") != "24h":
        raise refused(400, "Invalid value for 'completion_window'.", "invalid_value", param="completion_window")
    file = batches.file(str(asked.get("input_file_id")), "openai")
    if file is None or file.path is None:
        raise refused(400, f"Invalid input_file_id: {asked.get('input_file_id')}.", param="input_file_id")
    metadata = asked.get("metadata") or {}
    _check(metadata)
    read = partial(parse, endpoint=endpoint)
    scan = Scan.of(file.path, read, distinct=True)
    if max(len(scan.offsets), scan.texts) > MOST:
        scan.defect = f"The file has {len(scan.offsets)} lines and {scan.texts} inputs, {MOST} at most of either."
    model = _model(file.path)
    if model in call.fake.missing | call.fake.unbatched:
        scan.defect = f"The model '{model}' does not exist or is not available for batches."
    try:
        job = batches.create(
            "openai",
            scan,
            kind="embed" if endpoint == ENDPOINTS[0] else "describe",
            model=model,
            path=file.path,
            parse=read,
            publish=_publish,
            display_name=metadata.get("intent_id", ""),
            metadata=metadata,
            input_file=file.id,
            width=call.fake.width(model),
        )
    except LimitPassed as passed:
        code = "token_limit_exceeded" if passed.of == "tokens" else "rate_limit_exceeded"
        raise refused(429, f"Enqueued limit reached for {model}: {passed}.", code) from passed
    return Reply(shown(job))


def _check(metadata: dict[str, Any]) -> None:
    if len(metadata) > 16 or any(len(name) > 64 or len(value) > 512 for name, value in metadata.items()):
        raise refused(400, "Invalid 'metadata': 16 pairs, keys of 64 and values of 512 characters.", param="metadata")


def _model(path: Path) -> str:
    """Return the model of a file's first line."""
    with path.open("rb") as file:
        try:
            return str(orjson.loads(file.readline())["body"]["model"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""


def _publish(job: Job) -> Iterable[RemoteFile]:
    if job.state not in (State.SUCCEEDED, State.EXPIRED):
        return
    total = len(job.scan.offsets)
    if job.failed_lines < job.finished:
        job.output_file = f"file-output-{job.id}"
        source = partial(write, job, render)
        name = f"{job.id}_output.jsonl"
        yield RemoteFile(job.output_file, "openai", source, filename=name, purpose="batch_output")
    if job.failed_lines or job.finished < total:
        job.error_file = f"file-error-{job.id}"
        source = partial(write, job, render_error, clean=True)
        name = f"{job.id}_error.jsonl"
        yield RemoteFile(job.error_file, "openai", source, filename=name, purpose="batch_output")


async def show(call: Call, id_: str) -> Reply:
    """Poll a job, which moves it."""
    job = _existing(call, id_)
    call.fake.batches.poll(job)
    return Reply(shown(job))


async def listed(call: Call) -> Reply:
    """Return a page of jobs, newest first."""
    found, more = paged(call, call.fake.batches.visible("openai"), default=20)
    return listing(found, [shown(job) for job in found], more)


async def cancel(call: Call, id_: str) -> Reply:
    """Begin to stop a job."""
    job = _existing(call, id_)
    if job.state in ENDED:
        raise refused(409, f"Cannot cancel a batch with status '{WORDS.get(job.state, job.state)}'.")
    call.fake.batches.cancel(job, at_once=False)
    return Reply(shown(job))


def _existing(call: Call, id_: str) -> Job:
    job = call.fake.batches.job(id_, "openai")
    if job is None:
        raise refused(404, f"No batch found with id '{id_}'.")
    return job


def shown(job: Job) -> dict[str, Any]:
    """Return a job as the API shows it."""
    created = int(job.created.timestamp())
    problem = {"code": job.code, "line": None, "message": job.message, "param": None}
    ended = job.state in (State.SUCCEEDED, State.EXPIRED)
    counts = {
        "total": len(job.scan.offsets),
        "completed": job.finished - job.failed_lines if ended else 0,
        "failed": job.failed_lines,
    }
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": ENDPOINTS[job.kind != "embed"],
        "model": job.model,
        "errors": {"object": "list", "data": [problem]} if job.state is State.FAILED else None,
        "input_file_id": job.input_file,
        "completion_window": "24h",
        "status": WORDS.get(job.state, job.state),
        "output_file_id": job.output_file,
        "error_file_id": job.error_file,
        "created_at": created,
        "in_progress_at": created if job.polled else None,
        "expires_at": created + int(WINDOW.total_seconds()),
        "completed_at": _when(job, State.SUCCEEDED),
        "failed_at": _when(job, State.FAILED),
        "expired_at": _when(job, State.EXPIRED),
        "cancelled_at": _when(job, State.CANCELLED),
        "request_counts": counts,
        "metadata": job.metadata or None,
    }


def _when(job: Job, state: State) -> int | None:
    ended: datetime | None = job.ended
    return int(ended.timestamp()) if ended and job.state is state else None
