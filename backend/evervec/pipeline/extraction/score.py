"""Messages are scored: signal, weak signal or noise, with the factors that led there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

from evervec import log
from evervec.domain import ladder
from evervec.domain.protocols import Extractor
from evervec.errors import BadInputError, BadResponseError, EvervecError, ProviderError, TooLargeError
from evervec.pipeline.resources import Resources
from evervec.queue.names import EXTRACT_KNOWLEDGE, Lane
from evervec.store import messages
from evervec.store.messages import ClaimedMessage
from evervec.store.providers import Provider

logger = log.get("score")

SCORE_TOGETHER = 100
EXTRACT_TOGETHER = 100
FAILURES = 2
"""A chat model that is away is asked again as after so many failures: every two seconds."""
ATTEMPTS = 8
"""An answer that is wrong this often, for one message alone, is a person's business."""


class MessageLease:
    """One claim of messages for a stage: leases renewed while the extractor thinks, failures kept on the rows."""

    def __init__(self, resources: Resources, provider: Provider) -> None:
        self.resources = resources
        self.provider = provider
        self.extractor: Extractor = resources.models.extractor(provider)
        self.owner = uuid4()
        self.lease = resources.settings.lease_seconds

    async def claim(self, stage: str, ids: Sequence[int] | UUID, limit: int) -> list[ClaimedMessage]:
        """Lease messages that wait for the stage."""
        async with self.resources.database.transaction() as tx:
            return await messages.claim(tx, stage, ids=ids, limit=limit, owner=self.owner, lease=self.lease)

    @asynccontextmanager
    async def working(self, claimed: Sequence[ClaimedMessage]) -> AsyncIterator[None]:
        """Keep the leases while the body runs; what it did not finish goes back."""
        renewer = asyncio.create_task(self._renew())
        ids = [c.message.message_id for c in claimed]
        try:
            yield
        except ProviderError as error:
            await self._failed(ids, error)
        finally:
            renewer.cancel()
            with suppress(asyncio.CancelledError):
                await renewer
            await asyncio.shield(self._hand_back(ids))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with self.resources.database.transaction() as tx:
                    await messages.renew(tx, self.owner, lease=self.lease)
            except EvervecError as error:
                logger.warning("leases not renewed", error=str(error))

    async def _failed(self, ids: Sequence[int], error: ProviderError) -> None:
        """A wrong answer counts against the messages, one alone at the end; after anything else they just rest."""
        async with self.resources.database.transaction() as tx:
            if isinstance(error, BadInputError | TooLargeError | BadResponseError):
                last = ATTEMPTS if len(ids) == 1 else None
                await messages.back_off(tx, self.owner, ids, code=error.code, error=str(error), most=last)
            else:
                # not the breaker of the embeddings: a chat model that is away keeps no row from its vector
                seconds, _ = ladder.pause(error, FAILURES, now=datetime.now(UTC))
                await messages.delay(tx, self.owner, ids, seconds=seconds, code=error.code, error=str(error))
        logger.warning(
            "extraction waits", provider=self.provider.name, code=error.code, messages=len(ids), error=str(error)
        )

    async def _hand_back(self, ids: Sequence[int]) -> None:
        try:
            async with self.resources.database.transaction() as tx:
                await messages.release(tx, self.owner, ids)
        except EvervecError as error:
            # The database is away: the leases run out by themselves.
            logger.warning("leases not handed back", messages=len(ids), error=str(error))


async def score_messages(
    resources: Resources, ids: Sequence[int] | UUID, *, lane: Lane = Lane.INTERACTIVE
) -> dict[str, int]:
    """Score the given messages, or what waits in a dataset; rings for extraction of those with something to say."""
    shift = MessageLease(resources, await resources.provider())
    scored = 0
    while claimed := await shift.claim("score", ids, SCORE_TOGETHER):
        before = scored
        for group in isolate_retries(claimed):
            async with shift.working(group):
                scores = await shift.extractor.score([c.message for c in group])
                async with resources.database.transaction() as tx:
                    wanted = await messages.mark_scored(tx, shift.owner, group, scores)
                scored += len(group)
                for start in range(0, len(wanted), EXTRACT_TOGETHER):
                    part = wanted[start : start + EXTRACT_TOGETHER]
                    await resources.doorbell.ring(EXTRACT_KNOWLEDGE, lane=lane, message_ids=part)
        if scored == before:
            break
    return {"scored": scored}


def isolate_retries(claimed: Sequence[ClaimedMessage]) -> list[Sequence[ClaimedMessage]]:
    """What was refused in company is tried alone, so that one message never holds up its neighbours."""
    fresh = [c for c in claimed if c.attempts == 0]
    return [*([fresh] if fresh else []), *([c] for c in claimed if c.attempts)]
