"""What the budgets allow: the tokens of a request are taken before it is sent, and corrected when its answer is there."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from evervec import log
from evervec.domain.spending import shared_out
from evervec.domain.usage import Usage
from evervec.errors import AuthError, BadInputError, ConfigError, QuotaExhaustedError, RateLimitedError, TooLargeError
from evervec.pipeline.budget.prices import Rate
from evervec.store.budget import budgets
from evervec.store.budget.budgets import Grant
from evervec.store.database.session import Database
from evervec.store.providers import Provider

logger = log.get("budget")

LONGEST_WAIT = 90.0
"""Seconds that a request waits for its turn; where more are needed, its rows are released meanwhile."""


UNCHARGED = (RateLimitedError, QuotaExhaustedError, AuthError, ConfigError, BadInputError, TooLargeError)
"""Errors by which a provider says that it did not do, and does not charge, what it was asked."""


@dataclass
class Load:
    """The part of a request that belongs to one dataset. `tokens` are counted by us."""

    texts: int = 0
    tokens: int = 0


class BudgetClosed(Exception):
    """A budget does not allow a request. `grant` says which, and what would still fit."""

    def __init__(self, grant: Grant) -> None:
        super().__init__(grant.ceiling)
        self.grant = grant


async def closed(database: Database, provider: Provider, dataset_id: UUID | None) -> str | None:
    """Return the sentence that says why a provider is not sent a dataset's rows now: a ceiling is reached. None if none is."""
    if not provider.limited:
        return None
    async with database.read() as tx:
        found = await budgets.closed(tx, provider.id, dataset_id)
    return None if found is None else found.reason()


class Allowance:
    """The budgets of one provider and the datasets that it embeds for. Where nobody has a budget, it asks nothing."""

    def __init__(self, database: Database, provider: Provider, rate: Rate) -> None:
        self._database, self._provider = database, provider
        self._usd, self._output_usd = (rate.usd or 0.0) / 1_000_000, (rate.output_usd or 0.0) / 1_000_000

    async def take(self, loads: Mapping[UUID | None, Load], *, whatever: bool = False) -> None:
        """Take what a request needs, and wait for its turn. Raises `BudgetClosed` where a ceiling, or the wait, forbids it."""
        if not self._provider.limited:
            return
        wanted = {dataset_id: load.tokens for dataset_id, load in loads.items()}
        async with self._database.transaction() as tx:
            grant = await budgets.take(
                tx,
                self._provider.id,
                wanted,
                usd_per_token=self._usd,
                longest_wait=LONGEST_WAIT,
                whatever=whatever,
            )
        if not grant.granted:
            raise BudgetClosed(grant)
        if grant.wait > 0 and not whatever:
            await asyncio.sleep(grant.wait)

    async def settle(self, loads: Mapping[UUID | None, Load], used: Usage) -> None:
        """Correct what was taken to what the provider counted, if it said so, and take what came out."""
        if not self._provider.limited:
            return
        counted = [load.tokens for load in loads.values()]
        if used.tokens is not None:
            said = shared_out(used.tokens, counted)
            more = {one: tokens - mine for one, tokens, mine in zip(loads, said, counted, strict=True)}
            await self._correct(more, self._usd)
        answered = shared_out(used.output_tokens, counted)
        await self._correct(dict(zip(loads, answered, strict=True)), self._output_usd)

    async def failed(self, loads: Mapping[UUID | None, Load], error: BaseException, seconds: float) -> None:
        """Give back what was taken for a request that was refused; one that got no answer may have been paid."""
        if not self._provider.limited or not isinstance(error, UNCHARGED):
            return
        await self._correct({dataset_id: -load.tokens for dataset_id, load in loads.items()}, self._usd)
        if isinstance(error, RateLimitedError):
            async with self._database.transaction() as tx:
                await budgets.slow_down(tx, self._provider.id, seconds=seconds)
            logger.info("pace halved", provider=self._provider.name)

    async def _correct(self, more: Mapping[UUID | None, int], usd: float) -> None:
        if any(more.values()):
            async with self._database.transaction() as tx:
                await budgets.correct(tx, self._provider.id, more, usd_per_token=usd)
