"""The interface of a server of the embedded stack: start, health, stop."""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from evervec.errors import ServerStartError
from evervec.stack.locks import POLL_SECONDS
from evervec.stack.process import ServerProcess


class EmbeddedServer(ABC):
    """A server of the embedded stack. Every method but `alive` and `url` is called with the start lock held."""

    key: ClassVar[str]
    process: ServerProcess
    start_seconds: ClassVar[float]

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the address for clients; known once the server is up."""

    @abstractmethod
    async def answers(self) -> bool:
        """Return whether a client would be served now."""

    @abstractmethod
    async def launch(self) -> None:
        """Start the process, without waiting until it answers."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the server and every process of it; do nothing when it does not run."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the entry of this server in stack.json while it runs."""

    def alive(self) -> bool:
        """Return whether the process is there."""
        return self.process.find() is not None

    def maintain(self) -> None:
        """Do what is needed now and then while the server runs."""
        self.process.log.trim()

    async def ensure(self) -> None:
        """Attach to the running server, or start it. Raises ServerStartError when it does not come up."""
        self.maintain()
        before = self.process.log.size()
        if await self.process.settle() and await self._came_up(seen=True):
            return
        if not await self.process.settle():
            await self.launch()
            if await self._came_up(seen=False):
                return
        raise self._failed(before)

    async def _came_up(self, *, seen: bool) -> bool:
        """Wait until the server answers; return False as soon as it is gone, or after `start_seconds`.

        `seen`: it was there before, so it is gone even if children of it are left.
        """
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            if await self.answers():
                return True
            alive = self.alive()
            if (seen and not alive) or self.process.gone():
                return False
            seen = alive
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _failed(self, since: int) -> ServerStartError:
        return ServerStartError(
            server=self.process.name,
            seconds=f"{self.start_seconds:g}",
            log=self.process.log.tail(since) or "(none)",
            path=self.process.log.path,
        )
