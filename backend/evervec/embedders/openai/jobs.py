"""OpenAI's records of a batch and of a file, read as `RemoteJob` and `RemoteFile`; sends nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, Field

from evervec.domain.batch import RemoteFile, RemoteJob, RemoteState, intent_of
from evervec.vendors.openai.client import ListItem

INTENT: Final = "intent_id"
"""The key of our intent in a batch's metadata."""

MOST_ERROR: Final = 500

NO_ROOM: Final = "token_limit_exceeded"
"""The code of a batch that was accepted and then failed, because more tokens are queued than the account may have."""

REMOTE_STATES: Final[Mapping[str, RemoteState]] = {
    "validating": RemoteState.WAITING,
    "in_progress": RemoteState.RUNNING,
    "finalizing": RemoteState.RUNNING,
    "cancelling": RemoteState.RUNNING,
    "completed": RemoteState.SUCCEEDED,
    "failed": RemoteState.FAILED,
    "expired": RemoteState.EXPIRED,
    "cancelled": RemoteState.CANCELLED,
}


class LineFault(BaseModel):
    """A reason why a batch failed, and the line of its input."""

    message: str | None = None
    code: str | None = None
    line: int | None = None


class LineFaults(BaseModel):
    """All reasons why a batch failed; there may be one for every line."""

    data: list[LineFault] | None = None


class LineCounts(BaseModel):
    """The number of lines of a batch, of those completed and of those failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class OpenAIBatch(ListItem):
    """A batch, as every call about one answers it. Times are seconds since 1970, never later than the year 5138."""

    status: str
    created_at: float | None = Field(default=None, ge=0, le=1e11)
    metadata: dict[str, Any] | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: LineCounts | None = None
    errors: LineFaults | None = None


class OpenAIFile(ListItem):
    """A file, as every call about one answers it."""

    filename: str | None = None
    bytes: int | None = None
    created_at: float | None = Field(default=None, ge=0, le=1e11)
    status: str | None = None


class DeletedFile(ListItem):
    """The answer to the deletion of a file."""

    deleted: bool


def as_job(batch: OpenAIBatch) -> RemoteJob:
    """Return a batch as a `RemoteJob`. An expired or cancelled one has both files: finished lines, and the others."""
    counts = batch.request_counts or LineCounts()
    return RemoteJob(
        external_id=batch.id,
        state=REMOTE_STATES.get(batch.status, RemoteState.UNKNOWN),
        said=batch.status,
        intent=_intent(batch.metadata or {}),
        created_at=moment(batch.created_at),
        input_file=batch.input_file_id,
        result_files=tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
        total=counts.total,
        succeeded=counts.completed,
        failed=counts.failed,
        error=_errors(batch.errors),
        no_room=any(fault.code == NO_ROOM for fault in (batch.errors and batch.errors.data) or ()),
    )


def as_file(file: OpenAIFile) -> RemoteFile:
    """Return a file as a `RemoteFile`; its name is its id, and the name that we gave it holds the intent."""
    return RemoteFile(file.id, intent_of(file.filename), moment(file.created_at))


def moment(seconds: float | None) -> datetime | None:
    """Return seconds since 1970 as a moment."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _intent(metadata: Mapping[str, Any]) -> UUID | None:
    try:
        return UUID(str(metadata.get(INTENT)))
    except ValueError:
        return None


def _errors(errors: LineFaults | None) -> str | None:
    """Return what went wrong, each reason once."""
    messages = [_fault_message(fault) for fault in (errors.data if errors else None) or []]
    return "; ".join(dict.fromkeys(messages))[:MOST_ERROR] or None


def _fault_message(fault: LineFault) -> str:
    said = ": ".join(part for part in (fault.code, fault.message) if part) or "no reason given"
    return said if fault.line is None else f"{said} (line {fault.line})"
