"""What batch jobs of one type carry, as the saga of a job sees it: lines on their way out, answers on their way back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from evervec.domain.batch import BatchClient, JobType, RemoteJob, Results
from evervec.store.batch.batch_jobs import BatchJobRecord
from evervec.store.providers import Provider
from evervec.store.session import ReadTx, Tx

UNBOUNDED = 2**62

BAD_INPUT = ("bad_input", "too_large")
"""What a provider says of a line alone is about what was in it: it is given up, with these words."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Bounds:
    """What one job may hold."""

    rows: int
    tokens: int
    bytes: int


def is_outdated(job: BatchJobRecord, provider: Provider) -> bool:
    """Whether a job's vectors would be nobody's: another space is active now. A description belongs to no space."""
    space = provider.space
    return job.space_id is not None and (job.space_id != space.id or not space.active)


@dataclass(frozen=True)
class ReturnReason:
    """Why something comes back, by its rung of the failure ladder; `online`: it has waited too long for another job."""

    code: str
    error: str
    online: bool = False


@dataclass
class Intent:
    """A job that is about to be: whose it will be, where its lines go, what it may hold.

    `tries` is how often a job has given its rows back already. `reused` rows needed no line, `failed` ones can have none.
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


class Payload(Protocol):
    """What jobs of one type carry. It knows its own tables; of requests and states only the saga knows."""

    @property
    def job_type(self) -> JobType:
        """Whose jobs these are."""
        ...

    async def waiting(self, tx: ReadTx, scope: Sequence[UUID], *, tries: int) -> list[tuple[UUID, int]]:
        """`(dataset, how many a job could take)`, smallest first."""
        ...

    async def weight(self, tx: ReadTx, scope: Sequence[UUID]) -> tuple[int, int]:
        """About how many tokens, and bytes of lines, wait: what a plan is made of. 0 for what does not limit a job."""
        ...

    async def fill(self, intent: Intent, dataset_ids: Sequence[UUID]) -> bool:
        """Hold what waits for this intent, write both down, and the lines into its file; False, and no intent, for none."""
        ...

    async def rewrite(self, job: BatchJobRecord, intent: Intent) -> bool:
        """The lines of an intent that another process left behind, as far as they are still wanted; False for none."""
        ...

    async def hold(self, tx: Tx, job_id: UUID, *, hours: float) -> bool:
        """Keep everything in a job for itself, for so many hours; False when a part of it is somebody else's by now."""
        ...

    async def create(self, client: BatchClient, intent: UUID, file: str) -> RemoteJob:
        """Ask for the job of an uploaded file: exactly one request."""
        ...

    async def wanted(self, tx: ReadTx, job_id: UUID) -> bool:
        """Whether anything in a job still waits for what was sent."""
        ...

    def width(self, provider: Provider) -> int | None:
        """How wide the answered vectors are; None where texts are answered."""
        ...

    async def apply(self, job_id: UUID, provider: Provider, results: Results) -> None:
        """Settle one piece of answers in one transaction, where what was sent is still what is there."""
        ...

    async def give_back(self, tx: Tx, job_id: UUID, why: ReturnReason | None) -> None:
        """Let go of everything that has got no answer. `why` counts as a try; without it nothing is held against it."""
        ...
