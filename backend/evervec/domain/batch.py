"""A job of a provider's batch API, as both sides of its client see it; no database rows and no requests here."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

from evervec.domain.protocols import Vectors

PREFIX = "evervec-"
"""The begin of the names of all our remote files and jobs; the rest is the id of the intent, 32 hex digits."""

TAG = 4
"""Bytes at the begin of an intent that identify its database: several databases may share one API key."""

DISCOUNT = 0.5
"""Both providers charge half the online price (`docs/batch.md`)."""


def new_intent(tag: bytes) -> UUID:
    """Return the id of a new intent of the database with this tag of four bytes."""
    return UUID(bytes=tag[:TAG] + uuid4().bytes[TAG:])


def belongs_to(intent: UUID | None, tag: bytes) -> bool:
    """Return whether an intent belongs to the database with this tag."""
    return intent is not None and intent.bytes[:TAG] == tag[:TAG]


class JobType(StrEnum):
    """The result of a job: vectors of texts, or descriptions of images and sounds."""

    EMBEDDING = "EMBEDDING"
    MEDIA_DESCRIPTION = "MEDIA_DESCRIPTION"


class JobStatus(StrEnum):
    """The state of a job in our database. `CREATED` is an intent: its rows are leased, and it may already have been sent."""

    CREATED = "CREATED"
    SUBMITTED = "SUBMITTED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class RemoteState(StrEnum):
    """The state of a job at the provider. `UNKNOWN` is one that we do not know: it is neither good nor final."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    GONE = "gone"
    UNKNOWN = "unknown"

    @property
    def over(self) -> bool:
        """Return whether the state is final."""
        return self in FINAL_STATES


FINAL_STATES = frozenset(
    {RemoteState.SUCCEEDED, RemoteState.FAILED, RemoteState.CANCELLED, RemoteState.EXPIRED, RemoteState.GONE}
)


@dataclass(frozen=True)
class RemoteJob:
    """A job as the provider describes it.

    `said` is the state in the provider's own word, `intent` the intent that the job carries (None: not one of ours),
    `input_file` and `result_files` are remote names, as `download` and `remove_file` take them. A job can be `SUCCEEDED`
    with lines that failed, and `EXPIRED` with results. `error` says why a job failed, `no_room` that it failed only for
    lack of quota: nothing was done.
    """

    external_id: str
    state: RemoteState
    said: str
    intent: UUID | None = None
    created_at: datetime | None = None
    input_file: str | None = None
    result_files: Sequence[str] = ()
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    error: str | None = None
    no_room: bool = False


@dataclass(frozen=True)
class RemoteFile:
    """A file at the provider. `intent` is the one that its name carries, None for a file that is not ours."""

    name: str
    intent: UUID | None
    created_at: datetime | None


@dataclass(frozen=True)
class BatchLimits:
    """What one job may hold (`rows`, `bytes` of its input file, `tokens`), and all running jobs together.

    The latter are `jobs` and `queued_tokens`. None: the provider names no limit.
    """

    rows: int
    bytes: int
    tokens: int | None = None
    jobs: int | None = None
    queued_tokens: int | None = None


@dataclass(frozen=True)
class Line:
    """One line of an input file; its answer carries the same `key`."""

    key: str
    text: str


@dataclass(frozen=True)
class MediaLine:
    """One image or sound to describe: its bytes, and their type (`image/png`)."""

    key: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class Results:
    """The answered lines in one part of a result file.

    `keys[i]` goes with row i of `vectors`, `(n, dim) float32` exactly as answered; or with `texts[i]` where texts were
    asked for. `errors` are `(key, code, message)` of lines that the provider could not process, `code` being a rung of the
    failure ladder (`bad_input`, `bad_response`, `transient`, …). `garbled` counts lines whose key can not be read.
    """

    keys: Sequence[str]
    vectors: Vectors | None = None
    texts: Sequence[str] | None = None
    errors: Sequence[tuple[str, str, str]] = ()
    garbled: int = 0


class BatchClient(Protocol):
    """A provider's batch API. It repeats no call: the caller knows what a second one would cost.

    Each call raises a `ProviderError` subclass. `TransientError` of `create_embedding_job` and `describe_media` means
    that nobody knows whether the job was made; any other error of theirs that it was not.
    """

    @property
    def name(self) -> str:
        """Return the provider's name in messages."""
        ...

    @property
    def limits(self) -> BatchLimits:
        """Return the limits of a job and of all running jobs."""
        ...

    def line(self, line: Line) -> bytes:
        """Return one line of an input file that asks for a vector, with its line break."""
        ...

    def media_line(self, line: MediaLine) -> bytes:
        """Return one line of an input file that asks for a description.

        Raises `BadInputError` for a kind of media that the provider has no model for, `ConfigError` if no chat model is set.
        """
        ...

    async def upload(self, intent: UUID, path: Path) -> str:
        """Upload an input file, streamed from disk, and return its remote name.

        The name carries the intent: a file that an earlier attempt left there is used, or replaced.
        """
        ...

    async def create_embedding_job(self, intent: UUID, file: str) -> RemoteJob:
        """Create a job that embeds the lines of an uploaded file; it carries the intent. Sends one request."""
        ...

    async def describe_media(self, intent: UUID, file: str) -> RemoteJob:
        """Create a job that describes the lines of an uploaded file, in the same way."""
        ...

    async def get_job_status(self, external_id: str) -> RemoteJob:
        """Return the present state of a job. A job that no longer exists is `GONE`, which is no error."""
        ...

    def jobs(self, since: datetime) -> AsyncIterator[RemoteJob]:
        """Yield our jobs (those that carry an intent) created at or after a moment, newest first, page by page."""
        ...

    def download_results(self, job: RemoteJob, *, lines: int, dimensions: int | None) -> AsyncIterator[Results]:
        """Yield the results of a job, `lines` of them at a time; the whole is never in memory.

        `dimensions` is the width that vectors must have, None where texts were asked for. A line that can not be read is
        counted; a vector of another width, or that is no list of numbers, is an error of its key (`bad_response`). Raises
        `ResultsDeletedError` if the file no longer exists; a connection that breaks in the middle raises `TransientError` after
        everything before it was yielded.
        """
        ...

    async def cancel(self, external_id: str) -> None:
        """Request the end of a job; one that is finished or gone is no error."""
        ...

    async def remove_job(self, external_id: str) -> None:
        """Delete a finished job, where the provider can; one that is gone is no error."""
        ...

    def files(self) -> AsyncIterator[RemoteFile]:
        """Yield our remote files (those whose name carries an intent), page by page."""
        ...

    async def remove_file(self, name: str) -> None:
        """Delete a remote file; one that is gone is no error."""
        ...

    async def aclose(self) -> None:
        """Release connections; may be called twice."""
        ...


def remote_name(intent: UUID) -> str:
    """Return the name of a remote file or job: `evervec-` and the intent in 32 hex digits, valid at every provider."""
    return f"{PREFIX}{intent.hex}"


def intent_of(name: str | None) -> UUID | None:
    """Return the intent that a remote name carries, or None for a name that is not ours.

    `files/` before it and an ending after it are allowed.
    """
    stem = (name or "").rpartition("/")[2].partition(".")[0]
    digits = stem.removeprefix(PREFIX)
    if stem == digits or len(digits) != 32:
        return None
    try:
        return UUID(hex=digits)
    except ValueError:
        return None
