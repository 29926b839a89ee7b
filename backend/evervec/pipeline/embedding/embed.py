"""The embedding engine, one for every kind: claim, reuse, batch, call the provider, judge, write if still true."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import NoReturn
from uuid import UUID, uuid4

import numpy as np

from evervec import log
from evervec.domain import ladder, packing
from evervec.domain.protocols import Embedder, Vectors
from evervec.domain.vectors import check_vectors
from evervec.errors import (
    BadInputError,
    BadResponseError,
    EvervecError,
    ProviderError,
    SpaceMismatchError,
    TooLargeError,
)
from evervec.pipeline.resources import Resources
from evervec.store import providers, rows, vectors
from evervec.store.providers import Provider
from evervec.store.rows import ClaimedRow, FailedRow
from evervec.store.schema.embeddables import Embeddable

logger = log.get("embed")

PROBE_TEXT = "Every row embedded."
TEXT_ERRORS = (BadInputError, TooLargeError, BadResponseError)
SUSPECT_ATTEMPTS = 3
"""A row whose lease ran out this often travels alone: it may be what kills the workers."""

Progress = Callable[[int], None]
Sent = Callable[[Sequence[ClaimedRow]], None]
"""Told of every request that the provider has answered: one row of each text that was in it."""

Claim = Callable[["ClaimedRows"], Awaitable[list[ClaimedRow]]]
Until = Callable[[], bool]


TIME_SLICE_SECONDS = 10.0
"""Seconds that one dataset is worked on before the next one gets its turn."""


def never() -> bool:
    """Go on until there is nothing left."""
    return False


def within_time_slice(until: Until) -> Until:
    """`until`, or ten seconds from now on: then it is another dataset's turn."""
    ends = monotonic() + TIME_SLICE_SECONDS
    return lambda: until() or monotonic() >= ends


@dataclass
class EmbedCounts:
    """What a run did. `sent` counts texts given to the provider, `reused` rows that got an equal text's vector."""

    success: int = 0
    failed: int = 0
    skipped: int = 0
    sent: int = 0
    reused: int = 0

    def add(self, other: "EmbedCounts") -> None:
        """Add another counts to this one."""
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)

    def as_result(self) -> dict[str, int]:
        """What an embed task answers."""
        return {"success": self.success, "failed": self.failed, "skipped": self.skipped}


class ProviderPaused(Exception):
    """The provider can not serve anybody now; the rows go back as they were."""


async def embed_rows(
    resources: Resources,
    embeddable: Embeddable,
    row_ids: Sequence[int],
    provider_id: UUID | None = None,
    *,
    sent: Sent | None = None,
) -> EmbedCounts:
    """Embed the given rows of a kind: what an `embed_*_batch_task` does.

    Rows that are embedded already, held by somebody else, empty or gone are skipped.
    """
    wanted = sorted(set(row_ids))
    left = list[int]()

    async def loop(parts: Iterator[list[int]]) -> EmbedCounts:
        total = EmbedCounts()
        for part in parts:

            async def claim(run: "ClaimedRows", part: list[int] = part) -> list[ClaimedRow]:
                async with resources.database.transaction() as tx:
                    held = await rows.claim_ids(tx, embeddable, part, limit=len(part), owner=run.owner, lease=run.lease)
                left.extend(set(part) - {row.row_id for row in held})
                return held

            total.add(await _once(resources, provider_id, claim, sent))
        return total

    size = resources.settings.embed_batch
    parts = _parts(wanted, size)
    total = await _two_at_once(lambda: loop(parts))
    if len(wanted) > size:
        # a text that was with the provider already, for the other claim: now its vector is there to be copied
        total.add(await loop(_parts(sorted(left), size)))
    total.skipped = len(wanted) - total.success - total.failed
    return total


async def embed_dataset(
    resources: Resources,
    dataset_id: UUID,
    *,
    provider_id: UUID | None = None,
    kind: int | None = None,
    batch: int | None = None,
    until: Until = never,
    progress: Progress | None = None,
    sent: Sent | None = None,
) -> EmbedCounts:
    """Embed what is pending in a dataset until nothing is free to claim, or `until`, asked before each claim, holds.

    Two claims are in flight: while one is with the provider the other is with the database.
    """
    size = batch or resources.settings.embed_batch

    async def claim(run: "ClaimedRows") -> list[ClaimedRow]:
        async with resources.database.transaction() as tx:
            return await rows.claim_dataset(tx, dataset_id, kind=kind, limit=size, owner=run.owner, lease=run.lease)

    async def loop() -> EmbedCounts:
        total = EmbedCounts()
        while not until():
            counts = await _once(resources, provider_id, claim, sent)
            if counts == EmbedCounts():
                break
            total.add(counts)
            if progress is not None:
                progress(counts.success + counts.failed)
            if counts.skipped:
                break
        return total

    return await _two_at_once(loop)


def _parts(row_ids: Sequence[int], size: int) -> Iterator[list[int]]:
    return (list(row_ids[start : start + size]) for start in range(0, len(row_ids), size))


async def _two_at_once(loop: Callable[[], Awaitable[EmbedCounts]]) -> EmbedCounts:
    """Two claims in flight: while one is with the provider the other is with the database."""
    total = EmbedCounts()
    # both come to their end, so that no loop is left behind when the other one fails
    for part in await asyncio.gather(loop(), loop(), return_exceptions=True):
        if isinstance(part, BaseException):
            raise part
        total.add(part)
    return total


async def _once(resources: Resources, provider_id: UUID | None, claim: Claim, sent: Sent | None) -> EmbedCounts:
    """Claim one batch of rows and see it through."""
    provider = await resources.provider(provider_id)
    if not provider.space.active:
        active = await resources.provider()
        raise SpaceMismatchError(provider=provider.name, wanted=provider.space, active=active.space)
    if provider.paused_seconds > 0:
        return EmbedCounts()
    run = ClaimedRows(resources, provider, sent)
    async with run.leases():
        await run.through(await claim(run))
    return run.counts


class ClaimedRows:
    """One claim's way through the provider. Whatever happens, no lease outlives it."""

    def __init__(self, resources: Resources, provider: Provider, sent: Sent | None = None) -> None:
        self.database = resources.database
        self.doorbell = resources.doorbell
        self.provider = provider
        self.embedder: Embedder = resources.models.embedder(provider)
        self.lease = resources.settings.lease_seconds
        self.owner = uuid4()
        self.counts = EmbedCounts()
        self._sent = sent
        self._held: dict[int, ClaimedRow] = {}
        self._found_healthy = False
        self._trusted = provider.failures == 0

    async def through(self, claimed: Sequence[ClaimedRow]) -> None:
        """Reuse, batch, embed and write the claimed rows."""
        if not claimed:
            return
        self._held = {row.vector_id: row for row in claimed}
        reused = await self.database.in_turn(lambda tx: vectors.reuse(tx, self.provider.space.id, claimed))
        await self._done(reused)
        self.counts.reused = len(reused)
        try:
            for batch in self._batches([row for row in claimed if row.vector_id not in reused]):
                await self._embed(batch)
        except ProviderPaused:
            self.counts.skipped = len(self._held)

    def _batches(self, pending: Sequence[ClaimedRow]) -> list[list[list[ClaimedRow]]]:
        """Requests of unique texts: each element of a batch is all the rows of one text."""
        same: dict[bytes, list[ClaimedRow]] = {}
        for row in pending:
            same.setdefault(row.content_hash, []).append(row)
        groups = list(same.values())
        suspects = [[group] for group in groups if group[0].attempts >= SUSPECT_ATTEMPTS]
        sound = [group for group in groups if group[0].attempts < SUSPECT_ATTEMPTS]
        sizes = self._sizes([group[0].text for group in sound])
        packed = [[sound[index] for index in batch] for batch in packing.pack(sizes, self.embedder.limits)]
        return packed + suspects

    def _sizes(self, texts: Sequence[str]) -> list[int]:
        # exact tokens take a local tokenizer half as long as the embedding itself
        if self.embedder.limits.tokens is None:
            return [len(text) for text in texts]
        return self.embedder.count_tokens(texts)

    async def _embed(self, batch: list[list[ClaimedRow]]) -> None:
        """Embed one request, halving it down to the texts that the provider can not take."""
        try:
            answer = await self.embedder.embed([group[0].text for group in batch])
            self._answered(batch)
            sound = check_vectors(
                answer, count=len(batch), dimensions=self.provider.space.dimensions, provider=self.provider.name
            )
        except TEXT_ERRORS as error:
            await self._isolate(batch, error)
            return
        except ProviderError as error:
            await self._pause(error)
        await self._write([group for group, ok in zip(batch, sound, strict=True) if ok], answer[sound])
        for group in (group for group, ok in zip(batch, sound, strict=True) if not ok):
            await self._isolate([group], BadResponseError(self.provider.name, "the vector is not finite, or zero"))

    def _answered(self, batch: list[list[ClaimedRow]]) -> None:
        self.counts.sent += len(batch)
        if self._sent is not None:
            self._sent([group[0] for group in batch])

    async def _write(self, groups: Sequence[Sequence[ClaimedRow]], answer: Vectors) -> None:
        if not groups:
            return
        flat = [row for group in groups for row in group]
        repeated = np.repeat(answer, [len(group) for group in groups], axis=0)
        written = await self.database.in_turn(
            lambda tx: vectors.update_vectors_bulk(tx, self.provider.space.id, flat, repeated)
        )
        if not self._trusted:
            async with self.database.transaction() as tx:
                await providers.unpause(tx, self.provider.id)
        self._trusted = True
        await self._done(written)

    async def _isolate(self, batch: list[list[ClaimedRow]], error: ProviderError) -> None:
        """Find the texts at fault. Only while the provider still embeds a plain sentence is a text to blame."""
        if not await self._is_healthy():
            await self._pause(error)
        if len(batch) > 1:
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                await self._embed(half)
            return
        async with self.database.transaction() as tx:
            for row in batch[0]:
                if ladder.gives_up(error, row.attempts):
                    given_up = FailedRow(row.vector_id, row.content_hash, error.code, str(error))
                    await rows.give_up(tx, self.owner, [given_up])
                else:
                    delay = ladder.row_delay(row.attempts)
                    await rows.back_off(tx, self.owner, row.vector_id, delay=delay, code=error.code, error=str(error))
        self.counts.failed += len(batch[0])
        self._forget(row.vector_id for row in batch[0])

    async def _is_healthy(self) -> bool:
        if not self._found_healthy:
            try:
                answer = await self.embedder.embed([PROBE_TEXT])
                sound = check_vectors(
                    answer, count=1, dimensions=self.provider.space.dimensions, provider=self.provider.name
                )
                self._found_healthy = bool(sound.all())
            except ProviderError as error:
                await self._pause(error)
        return self._found_healthy

    async def _pause(self, error: ProviderError) -> NoReturn:
        seconds, counted = ladder.pause(error, self.provider.failures, now=datetime.now(UTC))
        async with self.database.transaction() as tx:
            await providers.pause(
                tx,
                self.provider.id,
                seconds=seconds,
                code=error.code,
                error=str(error),
                counted=counted,
                known=self.provider.failures,
            )
        logger.warning(
            "provider paused", provider=self.provider.name, code=error.code, seconds=round(seconds, 1), error=str(error)
        )
        raise ProviderPaused from error

    async def _done(self, vector_ids: set[int]) -> None:
        """Written and committed: the mirrors may know."""
        self.counts.success += len(vector_ids)
        await self.doorbell.changed({self._held[vector_id].dataset_id for vector_id in vector_ids})
        self._forget(vector_ids)

    def _forget(self, vector_ids: Iterable[int]) -> None:
        for vector_id in vector_ids:
            self._held.pop(vector_id, None)

    @asynccontextmanager
    async def leases(self) -> AsyncIterator[None]:
        """Renew the leases while work lasts; hand back what is still held at the end, also when cancelled."""
        renewer = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewer.cancel()
            with suppress(asyncio.CancelledError):
                await renewer
            if self._held:
                await asyncio.shield(self._hand_back())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with self.database.transaction() as tx:
                    await rows.renew(tx, self.owner, lease=self.lease)
            except EvervecError as error:
                logger.warning("leases not renewed", error=str(error))

    async def _hand_back(self) -> None:
        try:
            async with self.database.transaction() as tx:
                await rows.release(tx, self.owner, list(self._held))
        except EvervecError as error:
            # The database is away: the leases run out by themselves.
            logger.warning("leases not handed back", rows=len(self._held), error=str(error))
