"""Gemini's records of a batch and of a file, read as `RemoteJob` and `RemoteFile`; they come in two spellings."""

import re
from datetime import datetime
from typing import Any, Final

from evervec.domain.batch import RemoteFile, RemoteJob, RemoteState, intent_of
from evervec.errors import BadResponseError

_JOB = re.compile(r"batches/[A-Za-z0-9._-]+")
_FILE = re.compile(r"files/[A-Za-z0-9._-]+")

_STATES: Final = {
    "UNSPECIFIED": RemoteState.WAITING,
    "PENDING": RemoteState.WAITING,
    "QUEUED": RemoteState.WAITING,
    "PAUSED": RemoteState.WAITING,
    "RUNNING": RemoteState.RUNNING,
    "UPDATING": RemoteState.RUNNING,
    "CANCELLING": RemoteState.RUNNING,
    "SUCCEEDED": RemoteState.SUCCEEDED,
    "FAILED": RemoteState.FAILED,
    "CANCELLED": RemoteState.CANCELLED,
    "EXPIRED": RemoteState.EXPIRED,
}


def job_of(provider: str, operation: dict[str, Any]) -> RemoteJob:
    """Return a job out of an operation of the batch API: `{"name", "metadata": {"state", …}, "response"?, "error"?}`.

    The state is `BATCH_STATE_*` in REST and `JOB_STATE_*` in documents, the result file is in `response` or in
    `metadata.output`, and numbers are strings. Raise `BadResponseError` for one without a name.
    """
    name, metadata = operation.get("name"), _object(operation.get("metadata"))
    if not isinstance(name, str) or not _JOB.fullmatch(name):
        raise BadResponseError(provider, "a batch job in the answer has no name")
    error = _object(operation.get("error"))
    said = str(metadata.get("state") or ("BATCH_STATE_FAILED" if error else "BATCH_STATE_UNSPECIFIED"))
    stats = _object(metadata.get("batchStats"))
    output = _object(operation.get("response")) or _object(metadata.get("output"))
    results = file_name(output, "responsesFile", "responses_file")
    return RemoteJob(
        external_id=name,
        state=_STATES.get(said.removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_"), RemoteState.UNKNOWN),
        said=said,
        intent=intent_of(_string(metadata.get("displayName"))),
        created_at=moment(metadata.get("createTime")),
        input_file=file_name(_object(metadata.get("inputConfig")), "fileName", "file_name"),
        result_files=(results,) if results else (),
        total=number(stats.get("requestCount")),
        succeeded=number(stats.get("successfulRequestCount")),
        failed=number(stats.get("failedRequestCount")),
        error=str(error.get("message") or error)[:500] if error else None,
    )


def file_of(file: dict[str, Any]) -> RemoteFile | None:
    """Return a file of the listing, or None for one without a valid name. Its name or display name holds the intent."""
    name = file_name(file, "name")
    if name is None:
        return None
    intent = intent_of(name) or intent_of(_string(file.get("displayName")))
    return RemoteFile(name, intent, moment(file.get("createTime")))


def file_name(holder: dict[str, Any], *spellings: str) -> str | None:
    """Return the remote name under one of these keys, None for one that can not stand in an address."""
    found = next((holder[spelling] for spelling in spellings if spelling in holder), None)
    return found if isinstance(found, str) and _FILE.fullmatch(found) and ".." not in found else None


def moment(value: object) -> datetime | None:
    """Return a time as Google writes it, with up to nine digits of a second."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def number(value: object) -> int:
    """Return a count, which proto-JSON writes as a string and leaves out when it is zero."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0


def objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list of an answer; a list that is left out is empty."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
