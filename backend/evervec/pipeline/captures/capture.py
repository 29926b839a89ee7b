"""What the work on an attached table asks of its capture; the table may be in our database or in another one."""

from typing import Protocol

from evervec.store.attached.changes import Backlog, Taken
from evervec.store.database.session import Tx


class Capture(Protocol):
    """One way in which writes to one table are noticed.

    What was taken stays until it is forgotten: rows are written in between, and a crash before the end has the same taken
    again. Both kinds of forgetting are called for everything that was taken: one in the transaction that writes the rows,
    one after its commit.
    """

    async def waits(self) -> bool:
        """Return whether there is anything to take; cheap, and asked by several processes at once."""
        ...

    async def take(self, limit: int) -> Taken:
        """Return the oldest changes, about `limit`; empty if none waits. A row that is read afterwards is as new as they say."""
        ...

    async def forget_inside(self, tx: Tx, taken: Taken) -> None:
        """Forget in our own database, in the transaction that completes the rows."""
        ...

    async def forget_after(self, taken: Taken) -> None:
        """Forget in another database, after that transaction."""
        ...

    async def backlog(self) -> Backlog:
        """Return how many changes wait, as far as that is known, and for how long."""
        ...
