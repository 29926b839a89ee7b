"""The connection on which a process hears rings. It connects again by itself, and notices when it is dead."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from evervec import log
from evervec.errors import DatabaseRefusedError, EvervecError, PoolerError
from evervec.store.database.session import DRIVER_ERRORS, Database

logger = log.get("rings")

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
REFUSED_PAUSE_SECONDS: Final = 30.0
"""Seconds until it is tried again where LISTEN can not work: behind a pooler, or on a standby that may be promoted."""

ALIVE_SECONDS: Final = 10.0
"""Seconds between two queries that show a connection which died in silence, and until one of them counts as lost."""


class Listener:
    """Hears one channel until it is closed. `heard` gets each payload, and None when rings may have been missed."""

    def __init__(
        self,
        database: Database,
        channel: str,
        name: str,
        heard: Callable[[str | None], None],
        *,
        alive_seconds: float = ALIVE_SECONDS,
    ) -> None:
        self._database = database
        self._channel = channel
        self._name = name
        self._heard = heard
        self._alive_seconds = alive_seconds
        self._task: asyncio.Task[None] | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._deaf = False

    def start(self) -> None:
        """Begin to listen in the background."""
        self._task = self._task or asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """End the connection; may be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with self._database.direct("LISTEN") as connection:
                    await self._hear(connection)
                self._tell("the connection ended")
            except (PoolerError, DatabaseRefusedError) as error:
                self._pause = REFUSED_PAUSE_SECONDS
                self._tell(str(error))
            except (EvervecError, *DRIVER_ERRORS) as error:
                self._tell(str(error) or type(error).__name__)
            except Exception:
                # if this task ended, the process would seem to listen for ever
                logger.exception("listening failed")
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    async def _hear(self, connection: Any) -> None:
        """Listen until the connection ends. Raises what the driver raises if it is found dead."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        await connection.execute("SELECT set_config('application_name', $1, false)", self._name)
        await connection.add_listener(self._channel, lambda _, __, ___, payload: self._heard(payload))
        self._pause = FIRST_PAUSE_SECONDS
        if self._deaf:
            self._deaf = False
            logger.warning("listening again")
        self._heard(None)
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), self._alive_seconds)
            except TimeoutError:
                await self._prove_alive(connection)

    async def _prove_alive(self, connection: Any) -> None:
        try:
            await connection.fetchval("SELECT 1", timeout=self._alive_seconds)
        except TimeoutError:
            connection.terminate()  # a polite end would wait for the answer that does not come
            raise

    def _tell(self, reason: str) -> None:
        """Log once why nothing is heard, until it is heard again."""
        if not self._deaf:
            self._deaf = True
            logger.warning("not listening, the sweep finds the rows", reason=reason)
