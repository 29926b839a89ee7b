"""Messages are scored: signal, weak signal or noise, with the factors that the score is made of."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence, Set
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from evervec import log
from evervec.domain import ladder
from evervec.domain.protocols import Extractor
from evervec.domain.spending import Reason
from evervec.domain.text import estimate_tokens
from evervec.errors import BadInputError, BadResponseError, ProviderError, TooLargeError
from evervec.pipeline.budget import prices
from evervec.pipeline.budget.allowance import BudgetClosed, Load
from evervec.pipeline.budget.meter import Meter
from evervec.pipeline.leases import Lease
from evervec.pipeline.resources import Resources
from evervec.queue.names import EXTRACT_KNOWLEDGE, Lane
from evervec.store import messages
from evervec.store.messages import ClaimedMessage
from evervec.store.providers import Provider

logger = log.get("score")
Answer = TypeVar("Answer")

SCORE_TOGETHER = 100
EXTRACT_TOGETHER = 100
FAILURES = 2
"""Failures that the pause of an unreachable chat model is computed from: it is asked again every two seconds."""
BUDGET_SECONDS = 60.0
"""Messages that a budget keeps from a chat model are tried again after this."""
ATTEMPTS = 8
"""Wrong answers for one message alone until it counts as failed and waits for a person."""


class MessageLease:
    """The messages that one call scores or extracts: claimed, with their lease renewed, and with failures recorded."""

    def __init__(self, resources: Resources, provider: Provider) -> None:
        self.provider = provider
        self.extractor: Extractor = resources.clients.extractor(provider)
        self._database = resources.database
        self._meter: Meter | None = None
        self._lease = Lease(resources.database, messages, resources.settings.lease_seconds)
        self.owner = self._lease.owner

    async def claim(self, stage: str, ids: Sequence[int] | UUID, limit: int) -> list[ClaimedMessage]:
        """Claim messages that wait for a stage."""
        async with self._database.transaction() as tx:
            return await messages.claim(tx, stage, ids=ids, limit=limit, owner=self.owner, lease=self._lease.seconds)

    async def ask(self, call: Callable[[], Coroutine[Any, Any, Answer]], messages: Sequence[ClaimedMessage]) -> Answer:
        """Ask the extractor about messages. What a chat model takes is under the budgets, and counted; local rules are not.

        Raises `BudgetClosed`, and what `call` raises.
        """
        if not self.provider.chats:
            return await call()
        if self._meter is None:
            rate = await prices.of_chat(self.provider)
            self._meter = Meter(self._database, self.provider, Reason.EXTRACTION, rate=rate)
        loads: dict[UUID | None, Load] = {}
        for one in messages:
            load = loads.setdefault(one.dataset_id, Load())
            load.texts, load.tokens = load.texts + 1, load.tokens + estimate_tokens(one.message.text)
        try:
            return await self._meter.send(call, loads)
        finally:
            await self._meter.flush()

    @asynccontextmanager
    async def working(self, claimed: Sequence[ClaimedMessage]) -> AsyncIterator[None]:
        """Renew the lease while the body runs and release what it has not finished; record why it could not be.

        That is a `ProviderError`, or a budget that is used up.
        """
        ids = [c.message.message_id for c in claimed]
        async with self._lease.renewed(ids):
            try:
                yield
            except ProviderError as error:
                await self._record_failure(ids, error)
            except BudgetClosed as closed:
                await self._wait_for_budget(ids, closed)

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

    async def _wait_for_budget(self, ids: Sequence[int], closed: BudgetClosed) -> None:
        why = f"{self.provider.name}: a budget is used up ({closed.grant.ceiling or 'its pace'}): see `evervec budget list`"
        async with self._database.transaction() as tx:
            await messages.delay(tx, self.owner, ids, seconds=BUDGET_SECONDS, code="budget", error=why)
        logger.info("extraction postponed", provider=self.provider.name, code="budget", messages=len(ids), error=why)


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
                scores = await lease.ask(partial(lease.extractor.score, [c.message for c in group]), group)
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
