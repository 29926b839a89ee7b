"""The doorbell that the pipeline rings after a commit, whatever carries it: NATS or PostgreSQL."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from evervec.queue.names import Lane


@dataclass(frozen=True)
class Ring:
    """One hint that work waits.

    It names the task that does the work with its arguments, its lane, the id by which duplicates are recognised, and the
    dataset whose rows wait (`of`), None for any.
    """

    task_name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    lane: Lane = Lane.INTERACTIVE
    msg_id: str | None = None
    of: UUID | None = None


class Doorbell(Protocol):
    """Tells other processes that work waits. A ring that is lost costs time, never rows: the sweep finds them.

    Over NATS a ring is a task for one worker, in a lane. Over PostgreSQL it is the dataset alone, heard by every worker.
    """

    async def ring(
        self,
        task_name: str,
        *,
        of: UUID | None = None,
        lane: Lane = Lane.INTERACTIVE,
        msg_id: str | None = None,
        **kwargs: Any,
    ) -> bool:
        """Ring for work in the dataset `of`. Return whether it was taken."""
        ...

    async def ring_many(self, rings: Iterable[Ring]) -> int:
        """Ring many times. Return how many were taken."""
        ...

    async def changed(self, dataset_ids: Iterable[UUID]) -> bool:
        """Tell the mirrors that vectors of these datasets were written. Return whether it was taken."""
        ...

    def listening_for_changes(self, heard: Callable[[set[UUID]], None]) -> AbstractAsyncContextManager[bool]:
        """Call `heard` with the datasets of each `changed` inside the block. Yield whether anything can be heard."""
        ...

    async def aclose(self) -> None:
        """Stop; may be called twice."""
        ...


class SilentDoorbell:
    """The doorbell of a process that is not connected to a queue: the sweep finds its rows."""

    async def ring(self, task_name: str, **arguments: Any) -> bool:
        """Return that nothing was sent."""
        return False

    async def ring_many(self, rings: Iterable[Ring]) -> int:
        """Return that nothing was sent."""
        return 0

    async def changed(self, dataset_ids: Iterable[UUID]) -> bool:
        """Return that nothing was sent."""
        return False

    def listening_for_changes(self, heard: Callable[[set[UUID]], None]) -> AbstractAsyncContextManager[bool]:
        """Yield that nothing can be heard."""
        return nullcontext(False)

    async def aclose(self) -> None:
        """Close nothing."""
