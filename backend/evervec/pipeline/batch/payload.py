"""The payload of batch jobs, as seen by submission and collection: lines that are sent, answers that come back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar
from uuid import UUID

from evervec.domain.batch import BatchClient, JobType, RemoteJob, Results
from evervec.pipeline.resources import Resources
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.database.session import ReadTx, Tx
from evervec.store.providers import Provider
from evervec.store.spaces import spaces

UNBOUNDED = 2**62

BAD_INPUT = ("bad_input", "too_large")
"""Error codes of a single line that are about its content: the row has failed, with the provider's message."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Bounds:
    """The largest job that may be sent."""

    rows: int
    tokens: int
    bytes: int


async def is_outdated(tx: ReadTx, job: BatchJobRecord, provider: Provider) -> bool:
    """Return whether no dataset has the space of a job's vectors any more. Descriptions belong to no space."""
    if job.space_id is None:
        return False
    return job.space_id != provider.space.id or not await spaces.in_use(tx, job.space_id)


@dataclass(frozen=True)
class ReturnReason:
    """The reason why rows return to the queue. With `online` they have waited too long for another job."""

    code: str
    error: str
    online: bool = False


@dataclass
class Intent:
    """A job before it is submitted: its provider, the file for its lines, its bounds.

    `tries` is how often a job has returned its rows already. `reused` rows need no line, `failed` ones can have none.
    """

    id: UUID
    provider: Provider
    client: BatchClient
    path: Path
    bounds: Bounds
    tries: int
    tell: Progress
    reused: int = 0
    failed: int = 0


class Keyed(Protocol):
    """Something that was sent in the line with this key."""

    @property
    def key(self) -> str:
        """Return the key of its line."""
        ...


Sent = TypeVar("Sent", bound=Keyed)


class Unanswered(Generic[Sent]):
    """What was sent and has no answer yet. The first answer to a key counts; any other is a stray."""

    def __init__(self, sent: Sequence[Sent], strays: int) -> None:
        self.strays = strays
        self._by_key: dict[str, list[Sent]] = {}
        for one in sent:
            self._by_key.setdefault(one.key, []).append(one)

    def take(self, key: str) -> list[Sent]:
        """Remove and return what an answer with this key is for; count a stray if there is nothing."""
        found = self._by_key.pop(key, [])
        self.strays += not found
        return found


class Payload(Protocol):
    """The content of jobs of one type. It knows its own tables; requests and job states belong to submission and collection."""

    @property
    def job_type(self) -> JobType:
        """Return the type of the jobs."""
        ...

    def using(self, resources: Resources) -> Self:
        """Return the same payload with other resources: those whose database is guarded by a lease."""
        ...

    async def waiting(self, tx: ReadTx, scope: Sequence[UUID], *, tries: int) -> list[tuple[UUID, int]]:
        """Return `(dataset, how many a job could take)`, smallest first."""
        ...

    async def waiting_size(self, tx: ReadTx, scope: Sequence[UUID]) -> tuple[int, int]:
        """Estimate for a plan how many tokens, and bytes of lines, wait; 0 for what does not limit a job."""
        ...

    async def fill(self, intent: Intent, dataset_ids: Sequence[UUID]) -> bool:
        """Claim what waits for this intent, save both, and write the lines; return False, without an intent, for nothing."""
        ...

    async def rewrite(self, job: BatchJobRecord, intent: Intent) -> bool:
        """Write the lines again that another process left behind and that are still wanted; return False for none."""
        ...

    async def extend_claims(self, tx: Tx, job_id: UUID, *, hours: float) -> bool:
        """Keep everything in a job claimed for so many hours; return False when a part of it is lost already."""
        ...

    async def create_job(self, client: BatchClient, intent: UUID, file: str) -> RemoteJob:
        """Request the job of an uploaded file, in exactly one request."""
        ...

    async def is_wanted(self, tx: ReadTx, job_id: UUID) -> bool:
        """Return whether anything in a job still waits for the answer to what was sent."""
        ...

    def dimensions(self, provider: Provider) -> int | None:
        """Return the width of the answered vectors; None where texts are answered."""
        ...

    async def save_results(self, job_id: UUID, provider: Provider, results: Results) -> None:
        """Save one piece of answers in one transaction, where the text or file is still the one that was sent."""
        ...

    async def return_items(self, tx: Tx, job_id: UUID, reason: ReturnReason | None) -> None:
        """Return everything without an answer to the queue. A `reason` counts as an attempt; None does not."""
        ...
