"""The circuit breaker of a provider's endpoint as one worker uses it: opened by failures, tried by one, closed by success."""

from uuid import uuid4

from evervec import log
from evervec.domain import ladder
from evervec.errors import ProviderError, QuotaExhaustedError, RateLimitedError
from evervec.store import breakers, space_probes
from evervec.store.database.session import Database
from evervec.store.providers import Provider

logger = log.get("breaker")

WAITED = (RateLimitedError.code, QuotaExhaustedError.code)
"""Codes of pauses that the provider asked for: when they are over, rows are the trial, and no request is spent on a probe."""


class EndpointBreaker:
    """The breaker of one provider, in the state in which its record was read."""

    def __init__(self, database: Database, provider: Provider, *, trial_seconds: float) -> None:
        self._database, self._provider = database, provider
        self._seen = provider.breaker
        self._trial_seconds = trial_seconds
        self._owner = uuid4()
        self.on_trial = False

    async def admit(self) -> bool:
        """Return whether requests may be sent: the breaker is closed, or its pause is over and this worker is to try."""
        if self._seen.code is None:
            return True
        if not self._seen.is_open:
            async with self._database.transaction() as tx:
                self.on_trial = await breakers.begin_trial(
                    tx, self._provider.endpoint, self._owner, seconds=self._trial_seconds
                )
        return self.on_trial

    @property
    def wants_probe(self) -> bool:
        """Return whether the trial is a health probe, and not the rows themselves."""
        return self.on_trial and self._seen.code not in WAITED

    async def open_(self, error: ProviderError) -> None:
        """Open the breaker for all workers, for as long as the error says."""
        async with self._database.transaction() as tx:
            seconds, counted = ladder.pause(error, self._seen.failures, now=await tx.now())
            await breakers.open_(
                tx,
                self._provider.endpoint,
                seconds=seconds,
                code=error.code,
                error=str(error),
                counted=counted,
                known=self._seen.failures,
            )
        self.on_trial = False
        logger.warning(
            "provider paused",
            provider=self._provider.name,
            code=error.code,
            seconds=round(seconds, 1),
            error=str(error),
        )

    async def succeed(self) -> None:
        """Close the breaker if this worker tried it."""
        if self.on_trial:
            async with self._database.transaction() as tx:
                await breakers.close(tx, self._provider.endpoint)
                if self._seen.code not in WAITED:
                    await space_probes.make_due(tx, self._provider.endpoint)  # after an outage the model may be another
            self.on_trial = False

    async def leave(self) -> None:
        """Let another worker try the endpoint if this one had nothing to send."""
        if self.on_trial:
            async with self._database.transaction() as tx:
                await breakers.end_trial(tx, self._provider.endpoint, self._owner)
            self.on_trial = False
