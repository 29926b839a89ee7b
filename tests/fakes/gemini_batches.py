"""Gemini's batch jobs: created from a file or inline, asked, listed, cancelled and deleted."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson

from tests.fakes.batches import LimitPassed
from tests.fakes.gemini_errors import refused
from tests.fakes.gemini_files import existing, paged, stamp
from tests.fakes.gemini_lines import answer, described, either, parse_embed, render
from tests.fakes.jobs import ENDED, Job, Line, Scan, State
from tests.fakes.remote_files import RemoteFile
from tests.fakes.results import verdicts, write
from tests.fakes.wire import Call, Refused, Reply

WORDS = {State.UNKNOWN: "PARTIALLY_SUCCEEDED", State.CANCELLING: "RUNNING"}
TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."


def unknown_model(model: str) -> Refused:
    """Return the error for a model that does not exist, or can not do this."""
    return refused(404, f"models/{model} is not found for API version v1beta, or is not supported for this method.")


def inline_requests(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the requests inside the request to create a job, if there are any."""
    source = either(asked.get("batch") or {}, "input_config") or {}
    found: list[dict[str, Any]] = (source.get("requests") or {}).get("requests") or []
    return found


async def create_embedding(call: Call, model: str) -> Reply:
    """Create a job that embeds."""
    return _create(call, model, "embed")


async def create_generating(call: Call, model: str) -> Reply:
    """Create a job that describes media."""
    return _create(call, model, "describe")


def _create(call: Call, model: str, kind: Literal["embed", "describe"]) -> Reply:
    if model in call.fake.unbatched:
        raise unknown_model(model)
    batch = call.asked.get("batch") or {}
    batches = call.fake.batches
    path, file_name = _input(call, batch)
    parse = parse_embed if kind == "embed" else partial(_parse_describe, digests=batches.digests)
    try:
        job = batches.create(
            "gemini",
            Scan.of(path, parse, distinct=False),
            kind=kind,
            model=model,
            path=path,
            parse=parse,
            publish=_publish,
            display_name=either(batch, "display_name") or "",
            input_file=file_name,
            width=call.fake.width(model),
        )
    except LimitPassed as passed:
        raise refused(429, f"Resource has been exhausted (e.g. check quota): {passed}.") from passed
    return Reply(shown(call, job))


def _input(call: Call, batch: dict[str, Any]) -> tuple[Path, str | None]:
    """Return where the lines are, and the file that they came in."""
    source = either(batch, "input_config") or {}
    if name := either(source, "file_name"):
        file = existing(call, name.removeprefix("files/"))
        if file.path is None:
            raise refused(400, f"{name} was not uploaded.")
        return file.path, file.id
    requests = inline_requests(call.asked)
    if not requests:
        raise refused(400, "* BatchRequest.batch.input_config: a file_name or requests are needed\n")
    return call.fake.batches.inline(_numbered(requests)), None


def _numbered(requests: Iterable[dict[str, Any]]) -> Iterable[bytes]:
    """Return inline requests as lines of a file; a request without a key gets its number."""
    for place, request in enumerate(requests):
        metadata = request.get("metadata") or {}
        line = {"key": str(metadata.get("key", place)), "request": request["request"], "metadata": metadata}
        yield orjson.dumps(line)


def _parse_describe(raw: bytes, digests: dict[str, str]) -> Line:
    line = orjson.loads(raw)
    return described(str(line["key"]), line["request"], digests)


def _publish(job: Job) -> Iterable[RemoteFile]:
    if job.state is State.SUCCEEDED and job.input_file is not None:
        job.output_file = f"batch-{job.id}"
        yield RemoteFile(job.output_file, "gemini", partial(write, job, render))


async def show(call: Call, id_: str) -> Reply:
    """Poll a job, which moves it."""
    job = _existing(call, id_)
    call.fake.batches.poll(job)
    return Reply(shown(call, job))


async def listed(call: Call) -> Reply:
    """Return a page of jobs, newest first, without the results of inline ones."""
    found, after = paged(call, call.fake.batches.visible("gemini"), most=100)
    return Reply({"operations": [shown(call, job, inline=False) for job in found]} | after)


async def cancel(call: Call, id_: str) -> Reply:
    """Stop a job; one that has ended stays as it is."""
    call.fake.batches.cancel(_existing(call, id_), at_once=True)
    return Reply({})


async def delete(call: Call, id_: str) -> Reply:
    """Forget a job, which goes on all the same."""
    _existing(call, id_).deleted = True
    return Reply({})


def _existing(call: Call, id_: str) -> Job:
    job = call.fake.batches.job(id_, "gemini")
    if job is None:
        raise refused(404, f"Requested entity was not found: batches/{id_}")
    return job


def shown(call: Call, job: Job, *, inline: bool = True) -> dict[str, Any]:
    """Return a job as the operation that the API shows."""
    batches = call.fake.batches
    kind = "EmbedContentBatch" if job.kind == "embed" else "GenerateContentBatch"
    metadata: dict[str, Any] = {
        "@type": f"{TYPE}{kind}",
        "name": f"batches/{job.id}",
        "displayName": job.display_name,
        "model": f"models/{job.model}",
        "state": f"{batches.spelling}_{WORDS.get(job.state, job.state.upper())}",
        "createTime": stamp(job.created),
        "updateTime": stamp(job.ended or job.created),
        "batchStats": _stats(job),
    }
    if job.input_file:
        metadata["inputConfig"] = {"fileName": f"files/{job.input_file}"}
    operation: dict[str, Any] = {"name": f"batches/{job.id}", "metadata": metadata}
    if job.state not in ENDED:
        return operation
    operation["done"] = True
    metadata["endTime"] = stamp(job.ended or job.created)
    if job.state is not State.SUCCEEDED:
        code = 1 if job.state is State.CANCELLED else 4 if job.state is State.EXPIRED else 13
        return operation | {"error": {"code": code, "message": job.message}}
    output = {"responsesFile": f"files/{job.output_file}"} if job.output_file else _inlined(job) if inline else {}
    if batches.results_in != "response":
        metadata["output"] = output
    if batches.results_in != "metadata":
        operation["response"] = {"@type": f"{TYPE}{kind}Output"} | output
    return operation


def _stats(job: Job) -> dict[str, str]:
    total = len(job.scan.offsets)
    if job.state is not State.SUCCEEDED:
        return {"requestCount": str(total), "pendingRequestCount": str(total)}
    counts = {"requestCount": total, "successfulRequestCount": total - job.failed_lines}
    # proto-JSON leaves out what is zero
    return {name: str(count) for name, count in {**counts, "failedRequestCount": job.failed_lines}.items() if count}


def _inlined(job: Job) -> dict[str, Any]:
    """Return the results of a job without a file, in the order of its requests."""
    found = [answer(job, verdict) | {"metadata": {"key": verdict.line.key}} for verdict in verdicts(job)]
    return {"inlinedResponses": {"inlinedResponses": found}}
