"""Counts what is sent to a provider, and writes the counts to the ledger together with what came of it."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from evervec.domain import usage
from evervec.domain.spending import LedgerKey, Reason, Spent, Tally, cost, shared_out
from evervec.domain.usage import Usage
from evervec.domain.vendors import FREE_TYPES
from evervec.pipeline.budget import prices
from evervec.pipeline.budget.allowance import Allowance, Load
from evervec.pipeline.budget.prices import Rate
from evervec.store.budget import ledger
from evervec.store.database.session import Database, Tx
from evervec.store.providers import Provider

Answer = TypeVar("Answer")


class Meter:
    """Sends requests of one piece of work to a provider, and counts them; `tally` may be shared with others.

    `rate` is that of the model that is asked, the embedding model unless it is given.
    """

    def __init__(
        self,
        database: Database,
        provider: Provider,
        reason: Reason,
        tally: Tally | None = None,
        *,
        rate: Rate | None = None,
    ) -> None:
        self._database, self._provider, self._reason = database, provider, reason
        self._rate = Rate(provider.model, prices.of_embedding(provider)) if rate is None else rate
        self._tally = Tally() if tally is None else tally
        self._allowance = Allowance(database, provider, self._rate)

    async def send(
        self,
        call: Callable[[], Coroutine[Any, Any, Answer]],
        loads: Mapping[UUID | None, Load],
        *,
        reason: Reason | None = None,
        whatever: bool = False,
    ) -> Answer:
        """Send a request by `call` when the budgets allow it, and count it for the datasets whose texts it holds.

        A request that fails is counted too, without its texts: nobody knows whether they were read. `whatever` the budgets
        say, it is sent at once. Raises `BudgetClosed`, and what `call` raises.
        """
        await self._allowance.take(loads, whatever=whatever)
        started = monotonic()
        with usage.measured() as used:
            try:
                answer = await call()
            except BaseException as error:
                self._count(dict.fromkeys(loads, Load()), used, monotonic() - started, reason)
                await self._allowance.failed(loads, error, monotonic() - started)
                raise
        self._count(loads, used, monotonic() - started, reason)
        await self._allowance.settle(loads, used)
        return answer

    def probed(self, load: Load, told: int | None, seconds: float) -> None:
        """Count a probe that was sent before its provider had a record."""
        self._count({None: load}, Usage(told), seconds, Reason.PROBE)

    def reused(self, tokens: Mapping[UUID, Iterable[int]]) -> None:
        """Count rows that got the vector of an equal text instead of being sent: by dataset the tokens of each."""
        for dataset_id, counts in tokens.items():
            sizes = list(counts)
            self._entry(dataset_id).add(
                Spent(reused=len(sizes), reused_tokens=sum(sizes), saved_usd=cost(sum(sizes), self._rate.usd) or 0.0)
            )

    async def write(self, tx: Tx) -> None:
        """Write the counts with what a transaction writes; `written` says that it is committed."""
        await ledger.add(tx, self._tally.entries)

    def written(self) -> None:
        """Forget the counts that a committed transaction has written."""
        self._tally.take()

    async def flush(self) -> None:
        """Write what is left, in a transaction of its own."""
        if self._tally.entries:
            await self._database.with_retries(self.write)
            self.written()

    def _count(self, loads: Mapping[UUID | None, Load], used: Usage, seconds: float, reason: Reason | None) -> None:
        """Count a request. The model of this process tells the tokens that it counted; a server's count is kept apart."""
        counted = [load.tokens for load in loads.values()]
        parts = counted if used.tokens is None else shared_out(used.tokens, counted)
        answered = shared_out(used.output_tokens, counted)
        ours = self._provider.type in FREE_TYPES
        for place, (dataset_id, load) in enumerate(loads.items()):
            said = parts[place]
            money, output_money = cost(said, self._rate.usd), cost(answered[place], self._rate.output_usd)
            self._entry(dataset_id, reason).add(
                Spent(
                    requests=max(1, used.answers) if place == 0 else 0,
                    texts=load.texts,
                    tokens=said if ours else load.tokens,
                    told_tokens=0 if ours or used.tokens is None else said,
                    output_tokens=answered[place],
                    seconds=seconds / len(loads),
                    usd=(money or 0.0) + (output_money or 0.0),
                    unpriced_tokens=said if money is None else 0,
                )
            )

    def _entry(self, dataset_id: UUID | None, reason: Reason | None = None) -> Spent:
        return self._tally.entry(LedgerKey(self._provider.name, self._rate.model, dataset_id, reason or self._reason))
