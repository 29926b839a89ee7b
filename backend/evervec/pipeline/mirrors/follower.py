"""Keep the mirrors of a process up to date: hear the doorbell, apply the feed, open, check, compact, answer requests."""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from time import monotonic
from uuid import UUID

from evervec import log
from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.errors import EvervecError, MirrorFolderError
from evervec.pipeline.mirrors.mirror import Mirror
from evervec.pipeline.mirrors.recall import measure
from evervec.pipeline.mirrors.registry import FollowerDoorbell, Mirrors
from evervec.pipeline.mirrors.relation import NothingToMirrorError, OtherDatabaseError
from evervec.queue.doorbell import Doorbell
from evervec.store import datasets, mirrors
from evervec.store.database.session import ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.mirrors import MirrorProgress
from evervec.store.spaces import spaces

logger = log.get("mirror")

REPORT_SECONDS = 1.0
DISCOVER_SECONDS = 2.0
ADVANCE_SECONDS = 5.0
"""How old the watermark of an unchanged dataset may become, so that its next read of the feed is short."""


async def follow(mirrors: Mirrors, doorbell: Doorbell, finish: asyncio.Event) -> None:
    """Keep a mirror of every live dataset up to date until `finish` is set."""
    with mirrors.followed() as heard:
        await Follower(mirrors, doorbell, heard).run(finish)


class Follower:
    """The loop of one process. Changes are applied as they come; maintenance that is due runs beside that."""

    def __init__(self, of: Mirrors, changes_doorbell: Doorbell, doorbell: FollowerDoorbell) -> None:
        self._mirrors = of
        self._settings = of.settings
        self._database = of.database
        self._changes_doorbell = changes_doorbell
        self._doorbell = doorbell
        self._listening = False
        self._lost_before = of.database.lost_connections
        self._stopping = False
        self._due: dict[tuple[tuple[UUID, int] | None, str], float] = {}
        self._background: dict[tuple[tuple[UUID, int], str], asyncio.Task[None]] = {}
        self._maintenance: asyncio.Task[None] | None = None

    async def run(self, finish: asyncio.Event) -> None:
        """Follow until `finish` is set, by doorbell and by polling; then save small mirrors and sign off."""
        ended = asyncio.create_task(self._wake_at(finish))
        try:
            async with AsyncExitStack() as subscription:
                while not finish.is_set():
                    await self._logged(self._subscribe(subscription))
                    await self._round()
                    await self._until_woken()
        finally:
            ended.cancel()
            self._stopping = True
            if self._maintenance is not None:
                await asyncio.gather(self._maintenance, return_exceptions=True)
            await self._leave()

    async def _subscribe(self, subscription: AsyncExitStack) -> None:
        """Subscribe once changes can be heard; from then on the connection comes back by itself."""
        if not self._listening:
            changed = self._changes_doorbell.listening_for_changes(self._doorbell.ring)
            self._listening = await subscription.enter_async_context(changed)
            if not self._listening:
                await subscription.aclose()

    async def _wake_at(self, finish: asyncio.Event) -> None:
        await finish.wait()
        self._doorbell.woken.set()

    async def _until_woken(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._doorbell.woken.wait(), self._settings.mirror_poll_seconds)
        self._doorbell.woken.clear()

    async def _round(self) -> None:
        """Apply changes, and start the maintenance that is due beside it, so that no change waits for it."""
        await self._logged(self._apply_changes())
        if self._maintenance is None or self._maintenance.done():
            self._maintenance = asyncio.create_task(self._logged(self._maintain()))
        if not self._mirrors.all():  # at the start all mirrors are opened before anything else happens
            await self._maintenance

    async def _logged(self, work: Awaitable[None]) -> None:
        """Log an error instead of raising it: the loop goes on, and the next round tries again."""
        try:
            await work
        except EvervecError as error:
            logger.warning("mirror round failed", reason=str(error))
        except Exception:
            logger.exception("mirror round failed")

    async def _apply_changes(self) -> None:
        """Update the mirrors that the doorbell rang for, and at every poll all; of several, only those that changed."""
        rung = self._doorbell.take()
        if any(not self._mirrors.of_dataset(dataset_id) for dataset_id in rung):
            self._due.pop((None, "discover"), None)  # a new dataset: look for it at once
        everything = self._is_due("poll", self._settings.mirror_poll_seconds)
        ready = {
            mirror.key: mirror.index.snapshot.watermark
            for mirror in self._mirrors.all()
            if mirror.index is not None and (everything or mirror.dataset.id in rung)
        }
        changed = set(ready)
        if len(ready) > 1:
            async with self._database.read() as tx:
                changed, now = await changes.with_unseen(tx, ready), await changes.watermark(tx)
            # no change is not enough after a lost connection: the server may have another history
            changed |= {one.key for one in self._mirrors.all() if one.key in ready and one.was_disconnected}
            for key in ready.keys() - changed if self._is_due("advance", ADVANCE_SECONDS) else ():
                if (mirror := self._mirrors.known(key)) is not None:
                    await mirror.advance(ready[key], now)
        for key in changed:
            if (mirror := self._mirrors.known(key)) is not None:  # None: the dataset was deleted meanwhile
                await self._catch_up(mirror)

    async def _catch_up(self, mirror: Mirror) -> None:
        try:
            await mirror.catch_up()
        except OtherDatabaseError as error:
            logger.warning("mirror of another database", dataset=mirror.name, reason=str(error))
            mirror.distrust(str(error))
            self._in_background(mirror, "open", self._open(mirror))
        except NothingToMirrorError as error:
            mirror.fail(str(error))

    async def _maintain(self) -> None:
        if self._is_due("discover", DISCOVER_SECONDS):
            await self._discover(first=not self._mirrors.all())
        if self._is_due("report", REPORT_SECONDS):
            await self._report()
        reconnected = self._lost_before != self._database.lost_connections
        self._lost_before = self._database.lost_connections
        for mirror in [m for m in self._mirrors.all() if m.index is not None and not self._stopping]:
            self._start_due_work(mirror, reconnected=reconnected)

    async def _discover(self, *, first: bool) -> None:
        """Open the mirrors of new datasets, and of spaces that are ready; remove those that are gone.

        The first call waits until all are open.
        """
        async with self._database.read() as tx:
            live = {(one.id, one.space_id): one for one in await datasets.live(tx)}
            others = await self._other_spaces(tx, live.values())
            feed = await changes.feed_state(tx, UUID(int=0), await spaces.default(tx))
        for mirror in [m for m in self._mirrors.all() if m.key not in live and m.key not in others]:
            await self._mirrors.remove_files(self._mirrors.forget(mirror.key))
        if feed is None:
            return
        for key, dataset in (live | others).items():
            mirror = self._mirrors.mirror(dataset, current=key in live)
            folder = self._mirrors.folder_of(None if key in live else dataset.space_id)
            if not await mirror.turn(current=key in live, folder=folder) and mirror.index is not None:
                self._in_background(mirror, "build", mirror.rebuild("its space is searched now, and it has no file"))
        if self._is_due("collect", self._settings.mirror_check_seconds):
            await self._collect(live.values(), others.values(), feed.identity)
        # every mirror is checked once, also one that was built before this process began to follow
        unchecked = [m for m in self._mirrors.all() if m.index is None or m.last_check is None]
        waiting = [
            m for m in unchecked if m.state != "dropped" and self._is_due("open", 2.0 ** min(m.failures, 8), m.key)
        ]
        opening = [self._in_background(mirror, "open", self._open(mirror)) for mirror in waiting]
        if first:
            await asyncio.gather(*opening)

    async def _other_spaces(self, tx: ReadTx, live: Iterable[DatasetRef]) -> dict[tuple[UUID, int], DatasetRef]:
        """Return the datasets as they are in the spaces that could be searched at once instead of the present ones."""
        by_id = {one.id: one for one in live}
        return {
            (one.dataset_id, one.space_id): replace(by_id[one.dataset_id], space_id=one.space_id)
            for one in await spaces.others(tx)
            if one.indexed and one.dataset_id in by_id
        }

    async def _open(self, mirror: Mirror) -> None:
        await mirror.open()
        self._mirrors.keep_to_budget(mirror)
        if mirror.index is not None:
            await self._check(mirror, asked=False)

    async def _collect(
        self, live: Iterable[DatasetRef], others: Iterable[DatasetRef], identity: DatabaseIdentity
    ) -> None:
        kept: dict[int | None, list[tuple[UUID, UUID]]] = {None: [(d.project_id, d.id) for d in live]}
        for one in others:
            kept.setdefault(one.space_id, []).append((one.project_id, one.id))
        try:
            for left in await asyncio.to_thread(self._mirrors.other_spaces_on_disk):
                kept.setdefault(left, [])
            for space_id, keep in kept.items():
                await asyncio.to_thread(self._mirrors.folder_of(space_id).collect, keep, of_database=identity)
        except MirrorFolderError as error:
            logger.warning("mirror files not removed", reason=str(error))

    def _start_due_work(self, mirror: Mirror, *, reconnected: bool) -> None:
        """Start what is due for one mirror in the background, each kind of work at most once at a time.

        After a crash of the server a new transaction can get the id of one that was lost, which the watermark counts as
        seen: so the mirror is also checked after a lost connection.
        """
        key = mirror.key
        if mirror.index is not None and (reason := mirror.index.compaction_due()):
            self._in_background(mirror, "build", mirror.rebuild(reason))
        if self._is_due("check", self._settings.mirror_check_seconds, key, at_once=False) or reconnected:
            self._in_background(mirror, "check", self._check_and_prune(mirror))
        if self._is_due("recall", self._settings.mirror_recall_seconds, key, at_once=False):
            self._in_background(mirror, "recall", measure(self._database, mirror))

    def _is_due(self, what: str, seconds: float, of: tuple[UUID, int] | None = None, *, at_once: bool = True) -> bool:
        now = monotonic()
        due = self._due.setdefault((of, what), now if at_once else now + seconds)
        if now < due:
            return False
        self._due[of, what] = now + seconds
        return True

    def _in_background(self, mirror: Mirror, what: str, work: Awaitable[object]) -> "asyncio.Task[None]":
        """Start work on a mirror, unless work of the same name runs for it; return its task."""
        key = (mirror.key, what)
        running = self._background.get(key)
        if running is not None:
            if asyncio.iscoroutine(work):
                work.close()
            return running
        task = asyncio.create_task(self._mirrors.guarded(mirror, work))
        self._background[key] = task
        task.add_done_callback(lambda _: self._background.pop(key, None))
        return task

    async def _check(self, mirror: Mirror, *, asked: bool) -> None:
        found = await self._mirrors.check(
            mirror.dataset, current=mirror.is_current, deep=asked
        )  # opens it first if it was dropped
        async with self._database.transaction() as tx:
            await mirrors.report(tx, self._mirrors.holder, self._reports())
        # in a transaction of its own: the second write of a row locks its dataset again (PostgreSQL's check of the
        # foreign key), which can deadlock with somebody who deletes the dataset
        async with self._database.transaction() as tx:
            await mirrors.record_check(
                tx,
                self._mirrors.holder,
                *mirror.key,
                missing=found.missing,
                extra=found.extra,
                stale=found.stale,
                answer=asked,
            )

    async def _check_and_prune(self, mirror: Mirror) -> None:
        """Check a mirror, then delete the tombstones that every live mirror has applied."""
        await self._check(mirror, asked=False)
        async with self._database.transaction() as tx:
            lowest = await mirrors.lowest_watermark(tx, mirror.dataset.id)
            if lowest is not None:
                await changes.prune(tx, mirror.dataset.id, Watermark.parse(lowest).xmin)

    async def _report(self) -> None:
        """Publish the state of every mirror, and start what other processes asked for."""
        async with self._database.transaction() as tx:
            asked = await mirrors.report(tx, self._mirrors.holder, self._reports())
        for key, what in asked.items():
            if (mirror := self._mirrors.known(key)) is not None:
                self._in_background(mirror, "asked", self._answer(mirror, what))

    async def _answer(self, mirror: Mirror, what: str) -> None:
        try:
            if what != "check":
                await mirror.rebuild(f"{what} was asked for")
            await self._check(mirror, asked=True)
        except Exception:
            async with self._database.transaction() as tx:
                await mirrors.decline(tx, self._mirrors.holder, *mirror.key)
            raise

    def _reports(self) -> list[MirrorProgress]:
        return [
            MirrorProgress(
                *mirror.key,
                mirror.state,
                mirror.reason,
                0 if mirror.index is None else len(mirror.index),
                mirror.memory,
                None if mirror.index is None else str(mirror.index.snapshot.watermark),
            )
            for mirror in self._mirrors.all()
        ]

    async def _leave(self) -> None:
        """Stop what runs, save small mirrors, and remove this process from the table of mirrors."""
        with self._mirrors.builds_stopped():
            await asyncio.gather(*self._background.values(), return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_seconds / 2):
                for mirror in self._mirrors.all():
                    await self._mirrors.guarded(mirror, mirror.save())
        try:
            async with self._database.transaction() as tx:
                await mirrors.remove_holder(tx, self._mirrors.holder)
        except EvervecError as error:
            logger.info("mirror leave failed", reason=str(error))
