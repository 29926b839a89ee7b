"""Publishing with a known outcome: acknowledged by the stream, or QueueDownError after a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import NoStreamResponseError

from evervec import log
from evervec.errors import QueueDownError
from evervec.queue.jetstream.connection import CONNECTION_ERRORS
from evervec.queue.jetstream.headers import MSG_ID

logger = log.get("queue")

_ATTEMPT_SECONDS = 2.0
_PAUSE = 0.1


class Publisher:
    """A publisher that gives each message an id, so that sending again after a lost answer stores it once.

    `repair` recreates a missing stream; `down` makes the error. `duplicates` counts what the server already had.
    """

    def __init__(
        self, js: JetStreamContext, repair: Callable[[], Awaitable[None]], down: Callable[[str], QueueDownError]
    ) -> None:
        self._js = js
        self._repair = repair
        self._down = down
        self.duplicates = 0

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, seconds: float) -> PubAck:
        """Publish and wait for the stream's acknowledgement, trying again until `seconds` are over.

        `headers` hold the id to deduplicate by. Raise QueueDownError (the outcome is unknown then), and nats'
        MaxPayloadError for a body that is too large.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self._counted(await self._attempt(subject, body, headers, min(left, _ATTEMPT_SECONDS)), headers)
            except MaxPayloadError:
                raise
            except CONNECTION_ERRORS as error:
                reason = str(error) or type(error).__name__
                logger.debug("publish not acknowledged, trying again", subject=subject, error=reason)
                await asyncio.sleep(min(_PAUSE, left))
        raise self._down(f"no acknowledgement within {seconds:g} s")

    async def _attempt(self, subject: str, body: bytes, headers: Mapping[str, str], seconds: float) -> PubAck:
        try:
            return await self._js.publish(subject, body, timeout=seconds, headers=dict(headers))
        except NoStreamResponseError:
            # Somebody removed the stream, or the server is still starting; either way the next attempt may succeed.
            await self._repair()
            raise

    def _counted(self, answer: PubAck, headers: Mapping[str, str]) -> PubAck:
        if answer.duplicate:
            self.duplicates += 1
            logger.info("message already on the stream", msg_id=headers[MSG_ID], stream=answer.stream)
        return answer
