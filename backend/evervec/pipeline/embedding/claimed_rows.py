"""Claimed rows on their way through the provider: copied, packed into requests, embedded, checked and written."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import NoReturn
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evervec.domain import ladder, packing, usage
from evervec.domain.protocols import Embedder, Vectors
from evervec.domain.spending import Reason
from evervec.domain.text import estimate_tokens
from evervec.domain.vectors import check_distinct, check_vectors
from evervec.errors import BadInputError, BadResponseError, ProviderError, TooLargeError, TransientError
from evervec.pipeline.budget.allowance import BudgetClosed, Load
from evervec.pipeline.budget.meter import Meter
from evervec.pipeline.embedding.breaker import EndpointBreaker
from evervec.pipeline.embedding.long_texts import LongTexts, joined
from evervec.pipeline.embedding.text_tokens import TextTokens
from evervec.pipeline.leases import Lease
from evervec.pipeline.resources import Resources
from evervec.store import providers
from evervec.store.database.session import Tx
from evervec.store.embeddings import rows, vectors
from evervec.store.embeddings.rows import ClaimedRow, FailedRow
from evervec.store.providers import Provider

HEALTH_TEXTS = ("Every row embedded.", "A provider that embeds two sentences works.")
"""The health probe: a provider that embeds these works, so a failure is about the texts that were sent."""

HEALTH_LOAD: Mapping[UUID | None, Load] = {None: Load(len(HEALTH_TEXTS), sum(map(estimate_tokens, HEALTH_TEXTS)))}

TEXT_ERRORS = (BadInputError, TooLargeError, BadResponseError, TransientError)
"""Errors that a single text of a request may have caused: a text can end a model's process, which looks like an outage."""

SUSPECT_ATTEMPTS = 3
"""A row whose lease ran out this often is sent alone: it may be what kills the workers. So is one that failed before."""

Sent = Callable[[Sequence[ClaimedRow]], None]
"""Called after every request that the provider has answered, with one row of each text that was in it."""


@dataclass
class EmbedCounts:
    """Numbers of rows by outcome. `sent` counts texts given to the provider, `reused` rows that got an equal text's vector."""

    success: int = 0
    failed: int = 0
    skipped: int = 0
    sent: int = 0
    reused: int = 0

    def add(self, other: "EmbedCounts") -> None:
        """Add other counts to these."""
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)

    def as_result(self) -> dict[str, int]:
        """Return the counts that an embed task answers with."""
        return {"success": self.success, "failed": self.failed, "skipped": self.skipped}


class TooManyTextsError(Exception):
    """The server takes fewer texts in one request, and says how many."""

    def __init__(self, texts: int) -> None:
        super().__init__(texts)
        self.texts = texts


class ProviderPaused(Exception):
    """The provider serves nobody now; the rows are released as they were."""


class ClaimedRows:
    """The rows of one claim. Whatever happens to them, their lease ends with the work."""

    def __init__(
        self, resources: Resources, provider: Provider, sent: Sent | None = None, *, reason: Reason = Reason.LIVE
    ) -> None:
        self.database = resources.database
        self.doorbell = resources.doorbell
        self.provider = provider
        self.embedder: Embedder = resources.clients.embedder(provider)
        self.lease = Lease(resources.database, rows, resources.settings.lease_seconds)
        self.counts = EmbedCounts()
        self.meter = Meter(resources.database, provider, reason)
        self._tokens = TextTokens(provider, self.embedder)
        self._long = LongTexts(provider, self.embedder, self._tokens)
        self._sent = sent
        self.unfinished: dict[int, ClaimedRow] = {}
        """By vector id, the rows that are neither written nor failed yet."""
        self._breaker = EndpointBreaker(resources.database, provider, trial_seconds=resources.settings.lease_seconds)
        self._found_healthy = False
        self._most_texts = self.embedder.limits.texts

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[bool]:
        """Yield whether rows may be claimed: not while the provider is paused, or tried by another worker."""
        try:
            yield await self._admit()
        finally:
            await self.meter.flush()
            await self._breaker.leave()

    async def _admit(self) -> bool:
        if not await self._breaker.admit():
            return False
        if self._breaker.wants_probe:
            try:
                await self._require_health(TransientError(self.provider.name, "it embeds no plain sentence"))
            except ProviderPaused:
                return False
            await self._breaker.succeed()
        return True

    async def embed(self, claimed: Sequence[ClaimedRow]) -> None:
        """Copy the vectors of equal texts, embed the other rows and write their vectors."""
        if not claimed:
            return
        self.unfinished.update((row.vector_id, row) for row in claimed)
        reused = await self.database.with_retries(lambda tx: vectors.reuse(tx, self.provider.space.id, claimed))
        self.meter.reused(self._tokens.by_dataset([row for row in claimed if row.vector_id in reused]))
        await self._finish(reused)
        self.counts.reused = len(reused)
        try:
            for request in await self._requests([row for row in claimed if row.vector_id not in reused]):
                await self._embed_what_fits(request)
        except ProviderPaused:
            self.counts.skipped = len(self.unfinished)

    async def _embed_what_fits(self, request: list[list[ClaimedRow]]) -> None:
        """Embed a request; under a ceiling that it does not fit, what does. Raises `ProviderPaused` for the rest."""
        try:
            await self._embed_in_parts(request)
        except BudgetClosed as closed:
            left = [group for group in request if group[0].vector_id in self.unfinished]
            with suppress(BudgetClosed):  # another worker may have taken the rest
                await self._embed_in_parts(self._tokens.fitting(left, closed.grant))
            raise ProviderPaused from closed

    async def _requests(self, pending: Sequence[ClaimedRow]) -> list[list[list[ClaimedRow]]]:
        """Pack unique texts into requests: each element of a request is all the rows of one text."""
        by_text: dict[bytes, list[ClaimedRow]] = {}
        for row in pending:
            by_text.setdefault(row.content_hash, []).append(row)
        groups = list(by_text.values())
        sizes = await self._tokens.sizes([group[0] for group in groups])
        alone = [_is_suspect(group) or self._long.is_long(group[0]) for group in groups]
        others = [index for index, is_alone in enumerate(alone) if not is_alone]
        packed = packing.pack([sizes[index] for index in others], self._tokens.limits)
        requests = [[groups[others[place]] for place in places] for places in packed]
        return requests + [[group] for group, is_alone in zip(groups, alone, strict=True) if is_alone]

    async def _embed_in_parts(self, request: list[list[ClaimedRow]]) -> None:
        """Embed the texts of one request, in several where the server says that it takes fewer in one."""
        left = request
        while left:
            part, left = left[: self._most_texts], left[self._most_texts :]
            try:
                await self._embed(part)
            except TooManyTextsError as refused:
                self._most_texts = refused.texts
                left = [group for group in part if group[0].vector_id in self.unfinished] + left
                async with self.database.transaction() as tx:
                    await providers.learn_request_texts(tx, self.provider.endpoint, refused.texts)

    async def _embed(self, request: list[list[ClaimedRow]]) -> None:
        """Embed the texts of one request; a text that the provider does not take is found, and the others are embedded."""
        error = await self._send(request)
        while error is not None:
            await self._require_health(error)
            request = await self._isolate(request, error)
            error = await self._send(request) if request else None

    async def _send(self, request: list[list[ClaimedRow]]) -> ProviderError | None:
        """Send one request and write its vectors. Return the error that one of its texts may have caused, else None."""
        try:
            if len(request) == 1 and self._long.is_long(request[0][0]):
                answer = await self._in_windows(request[0][0])
            else:
                answer = await self._whole([group[0].text for group in request], self._tokens.loads(request))
            self._count_sent(request)
            valid = self._validate(answer, len(request))
        except TooLargeError as error:
            if len(request) == 1 and self._long.narrow(request[0][0]):
                return await self._send(request)
            return error
        except TEXT_ERRORS as error:
            self._found_healthy = self._found_healthy and not isinstance(error, TransientError)
            return error
        except ProviderError as error:
            await self._pause(error)
        await self._write([group for group, ok in zip(request, valid, strict=True) if ok], answer[valid])
        for group in (group for group, ok in zip(request, valid, strict=True) if not ok):
            await self._fail(group, BadResponseError(self.provider.name, "the vector is not finite, or zero"))
        return None

    async def _whole(self, texts: Sequence[str], loads: Mapping[UUID | None, Load]) -> Vectors:
        """Send texts as they are. Raises `TooManyTextsError` where the server says that it takes fewer in one request."""
        try:
            return await self._request(texts, loads)
        except TooLargeError as error:
            if error.texts is not None and error.texts < len(texts):
                raise TooManyTextsError(error.texts) from error
            raise

    async def _in_windows(self, row: ClaimedRow) -> Vectors:
        """Embed a text that is longer than the model takes: `(1, dim) float32` made of the vectors of its windows."""
        refusal = self._long.refusal(row)
        if refusal is not None:
            raise refusal
        limits = self._tokens.limits
        limits = replace(limits, texts=min(limits.texts, self._most_texts))
        requests = await self._long.requests(row, limits)
        answers = list[Vectors]()
        for place, windows in enumerate(requests):
            load = Load(int(place == 0), sum(window.tokens for window in windows))
            answers.append(await self._whole([window.text for window in windows], {row.dataset_id: load}))
            self._check(answers[-1], len(windows))
        return joined([window for windows in requests for window in windows], np.concatenate(answers))

    async def _request(
        self, texts: Sequence[str], loads: Mapping[UUID | None, Load], *, reason: Reason | None = None
    ) -> Vectors:
        """Ask the provider. Every request of this claim goes through here, also those that probe."""
        return await self.meter.send(lambda: self._embed_and_compare(texts), loads, reason=reason)

    async def _embed_and_compare(self, texts: Sequence[str]) -> Vectors:
        with usage.measured() as used:
            try:
                answer = await self.embedder.embed(texts)
            finally:
                told = used.tokens
        usage.tell(told)
        self._long.compare(texts, used.tokens)
        return answer

    async def _isolate(self, request: list[list[ClaimedRow]], error: ProviderError) -> list[list[ClaimedRow]]:
        """Find the text that caused an error by halving, and count a failure against it; return what is still unsent.

        Whatever is not under suspicion is put aside and sent together, so that one text costs log2(n) + 2 requests.
        """
        suspects, aside, found = request, list[list[ClaimedRow]](), len(request) == 1
        while not found:
            middle = (len(suspects) + 1) // 2 if len(suspects) > 1 else 1
            failure = await self._send(suspects[:middle])
            if failure is not None:
                suspects, aside, error = suspects[:middle], suspects[middle:] + aside, failure
                found = len(suspects) == 1
            elif middle == len(suspects):
                return aside  # alone it was embedded: the error had another cause, which is gone
            else:
                suspects = suspects[middle:]
        await self._fail(suspects[0], error)
        return aside

    def _validate(self, answer: Vectors, count: int) -> NDArray[np.bool_]:
        valid = self._check(answer, count)
        check_distinct(answer, provider=self.provider.name)
        return valid

    def _check(self, answer: Vectors, count: int) -> NDArray[np.bool_]:
        dimensions = self.provider.space.dimensions
        return check_vectors(answer, count=count, dimensions=dimensions, provider=self.provider.name)

    def _count_sent(self, request: list[list[ClaimedRow]]) -> None:
        self.counts.sent += len(request)
        if self._sent is not None:
            self._sent([group[0] for group in request])

    async def _write(self, groups: Sequence[Sequence[ClaimedRow]], answer: Vectors) -> None:
        if not groups:
            return
        flat = [row for group in groups for row in group]
        windows = [self._long.count(row) for row in flat]
        repeated = np.repeat(answer, [len(group) for group in groups], axis=0)
        self.meter.reused(self._tokens.by_dataset([row for group in groups for row in group[1:]]))

        async def save(tx: Tx) -> set[int]:
            saved = await vectors.update_vectors_bulk(tx, self.provider.space.id, flat, repeated, windows)
            await self.meter.write(tx)
            return saved

        written = await self.database.with_retries(save)
        self.meter.written()
        await self._breaker.succeed()
        await self._finish(written)

    async def _fail(self, group: list[ClaimedRow], error: ProviderError) -> None:
        """Count a failure against the rows of one text, unless it is the provider that fails."""
        await self._require_health(error)
        async with self.database.transaction() as tx:
            for row in group:
                if ladder.gives_up(error, row.attempts):
                    failed = FailedRow(row.vector_id, row.content_hash, error.code, str(error))
                    await rows.give_up(tx, self.lease.owner, [failed])
                else:
                    delay = ladder.row_delay(row.attempts)
                    await rows.back_off(
                        tx, self.lease.owner, row.vector_id, delay=delay, code=error.code, error=str(error)
                    )
        self.counts.failed += len(group)
        self._forget(row.vector_id for row in group)

    async def _require_health(self, error: ProviderError) -> None:
        """Go on only while the provider embeds plain sentences; it is asked once, and again after each outage.

        Raises `ProviderPaused`.
        """
        if self._found_healthy:
            return
        try:
            healthy = self._validate(
                await self._request(HEALTH_TEXTS, HEALTH_LOAD, reason=Reason.PROBE), len(HEALTH_TEXTS)
            ).all()
        except ProviderError as problem:
            await self._pause(problem)
        except BudgetClosed as closed:
            raise ProviderPaused from closed
        if not healthy:
            await self._pause(error)
        self._found_healthy = True

    async def _pause(self, error: ProviderError) -> NoReturn:
        await self._breaker.open_(error)
        raise ProviderPaused from error

    async def _finish(self, vector_ids: set[int]) -> None:
        """Count rows whose vectors are committed, and tell the mirrors."""
        self.counts.success += len(vector_ids)
        await self.doorbell.changed({self.unfinished[vector_id].dataset_id for vector_id in vector_ids})
        self._forget(vector_ids)

    def _forget(self, vector_ids: Iterable[int]) -> None:
        for vector_id in vector_ids:
            self.unfinished.pop(vector_id, None)


def _is_suspect(group: Sequence[ClaimedRow]) -> bool:
    attempts = max(row.attempts for row in group)
    return attempts >= SUSPECT_ATTEMPTS or (attempts > 0 and any(row.last_code for row in group))
