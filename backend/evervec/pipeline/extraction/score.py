"""Messages are scored: signal, weak signal or noise, with the factors that the score is made of."""

from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from uuid import UUID

from evervec import log
from evervec.domain import ladder
from evervec.domain.protocols import Extractor
from evervec.errors import BadInputError, BadResponseError, ProviderError, TooLargeError
from evervec.pipeline.leases import Lease
from evervec.pipeline.resources import Resources
from evervec.queue.names import EXTRACT_KNOWLEDGE, Lane
from evervec.store import messages
from evervec.store.messages import ClaimedMessage
from evervec.store.providers import Provider

logger = log.get("score")

SCORE_TOGETHER = 100
EXTRACT_TOGETHER = 100
FAILURES = 2
"""Failures that the pause of an unreachable chat model is computed from: it is asked again every two seconds."""
ATTEMPTS = 8
"""Wrong answers for one message alone until it counts as failed and waits for a person."""


class MessageLease:
    """The messages that one call scores or extracts: claimed, with their lease renewed, and with failures recorded."""

    def __init__(self, resources: Resources, provider: Provider) -> None:
        self.provider = provider
        self.extractor: Extractor = resources.clients.extractor(provider)
        self._database = resources.database
        self._lease = Lease(resources.database, messages, resources.settings.lease_seconds)
        self.owner = self._lease.owner

    async def claim(self, stage: str, ids: Sequence[int] | UUID, limit: int) -> list[ClaimedMessage]:
        """Claim messages that wait for a stage."""
        async with self._database.transaction() as tx:
            return await messages.claim(tx, stage, ids=ids, limit=limit, owner=self.owner, lease=self._lease.seconds)

    @asynccontextmanager
    async def working(self, claimed: Sequence[ClaimedMessage]) -> AsyncIterator[None]:
        """Renew the lease while the body runs and release what it has not finished; record a `ProviderError` that it raises."""
        ids = [c.message.message_id for c in claimed]
        async with self._lease.renewed(ids):
            try:
                yield
            except ProviderError as error:
                await self._record_failure(ids, error)

    async def _record_failure(self, ids: Sequence[int], error: ProviderError) -> None:
        """Count a wrong answer against the messages, up to a limit for one alone; after any other error they only wait."""
        async with self._database.transaction() as tx:
            if isinstance(error, BadInputError | TooLargeError | BadResponseError):
                last = ATTEMPTS if len(ids) == 1 else None
                await messages.back_off(tx, self.owner, ids, code=error.code, error=str(error), most=last)
            else:
                # the breaker of the embedder stays closed: rows get their vectors while a chat model is away
                seconds, _ = ladder.pause(error, FAILURES, now=await tx.now())
                await messages.delay(tx, self.owner, ids, seconds=seconds, code=error.code, error=str(error))
        logger.warning(
            "extraction postponed", provider=self.provider.name, code=error.code, messages=len(ids), error=str(error)
        )


async def score_messages(
    resources: Resources, ids: Sequence[int] | UUID, *, lane: Lane = Lane.INTERACTIVE
) -> dict[str, int]:
    """Score the given messages, or those that wait in a dataset; ring for the extraction of those above noise."""
    lease = MessageLease(resources, await resources.provider())
    scored = 0
    while claimed := await lease.claim("score", ids, SCORE_TOGETHER):
        before = scored
        for group in isolate_retries(claimed):
            async with lease.working(group):
                scores = await lease.extractor.score([c.message for c in group])
                async with resources.database.transaction() as tx:
                    wanted = await messages.mark_scored(tx, lease.owner, group, scores.scores)
                scored += len(group)
                await _ring_for_extraction(resources, group, set(wanted), lane)
        if scored == before:
            break
    return {"scored": scored}


async def _ring_for_extraction(
    resources: Resources, scored: Sequence[ClaimedMessage], wanted: Set[int], lane: Lane
) -> None:
    for dataset_id in dict.fromkeys(c.dataset_id for c in scored):
        ids = [c.message.message_id for c in scored if c.dataset_id == dataset_id and c.message.message_id in wanted]
        for start in range(0, len(ids), EXTRACT_TOGETHER):
            part = ids[start : start + EXTRACT_TOGETHER]
            await resources.doorbell.ring(EXTRACT_KNOWLEDGE, of=dataset_id, lane=lane, message_ids=part)


def isolate_retries(claimed: Sequence[ClaimedMessage]) -> list[Sequence[ClaimedMessage]]:
    """Group messages: all first attempts together, each retry alone, so that one bad message fails no others."""
    fresh = [c for c in claimed if c.attempts == 0]
    return [*([fresh] if fresh else []), *([c] for c in claimed if c.attempts)]
