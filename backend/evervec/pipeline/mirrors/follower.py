"""Keeps the mirrors of a process true: hears bells, reads the feed, opens, checks, compacts, and answers what is asked."""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack, suppress
from time import monotonic
from uuid import UUID

from evervec import log
from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.errors import EvervecError, MirrorFolderError
from evervec.pipeline.mirrors.mirror import Mirror, NothingToMirrorError, OtherDatabaseError
from evervec.pipeline.mirrors.recall import measure
from evervec.pipeline.mirrors.registry import FollowerDoorbell, Mirrors
from evervec.queue.broker import JetStreamBroker
from evervec.queue.changed import hearing_changes
from evervec.store import changes, datasets, mirrors
from evervec.store.datasets import Dataset
from evervec.store.mirrors import MirrorProgress

logger = log.get("mirror")

REPORT_SECONDS = 1.0
DISCOVER_SECONDS = 2.0
ADVANCE_SECONDS = 5.0
"""How old the watermark of a dataset without news becomes, so that its next look need not go far back."""


async def follow(mirrors: Mirrors, broker: JetStreamBroker, finish: asyncio.Event) -> None:
    """Keep a mirror of every live dataset up to date until `finish` is set."""
    with mirrors.followed() as bells:
        await Follower(mirrors, broker, bells).until(finish)


class Follower:
    """One process's way of following. News are applied as they come; whatever else is due runs beside them."""

    def __init__(self, of: Mirrors, broker: JetStreamBroker, bells: FollowerDoorbell) -> None:
        self._mirrors = of
        self._settings = of.settings
        self._database = of.database
        self._broker = broker
        self._bells = bells
        self._hears = False
        self._breaks = of.database.breaks
        self._stopping = False
        self._due: dict[tuple[UUID | None, str], float] = {}
        self._behind: dict[tuple[UUID, str], asyncio.Task[None]] = {}
        self._chores: asyncio.Task[None] | None = None

    async def until(self, finish: asyncio.Event) -> None:
        """Follow until `finish` is set, by doorbell and by looking now and then; then leave what is on disk behind."""
        ended = asyncio.create_task(self._wake_at(finish))
        try:
            async with AsyncExitStack() as hearing:
                while not finish.is_set():
                    await self._logged(self._hear(hearing))
                    await self._turn()
                    await self._until_woken()
        finally:
            ended.cancel()
            self._stopping = True
            if self._chores is not None:
                await asyncio.gather(self._chores, return_exceptions=True)
            await self._leave()

    async def _hear(self, hearing: AsyncExitStack) -> None:
        """Listen as soon as there is a NATS to listen to; from then on the connection comes back by itself."""
        if not self._hears and self._broker.connected:
            self._hears = await hearing.enter_async_context(hearing_changes(self._broker, self._bells.ring))

    async def _wake_at(self, finish: asyncio.Event) -> None:
        await finish.wait()
        self._bells.woken.set()

    async def _until_woken(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._bells.woken.wait(), self._settings.mirror_poll_seconds)
        self._bells.woken.clear()

    async def _turn(self) -> None:
        """One round: the news, and beside it what is due otherwise, for which no news waits."""
        await self._logged(self._apply_news())
        if self._chores is None or self._chores.done():
            self._chores = asyncio.create_task(self._logged(self._do_chores()))
        if not self._mirrors.all():  # at the start all are opened before anything else happens
            await self._chores

    async def _logged(self, work: Awaitable[None]) -> None:
        """Whatever is down now is up again later: following itself never ends by an error."""
        try:
            await work
        except EvervecError as error:
            logger.warning("mirrors are not followed for the moment", reason=str(error))
        except Exception:
            logger.exception("mirrors are not followed for the moment")

    async def _apply_news(self) -> None:
        """Catch up those that a bell rang for, and now and then all; of many, those that have news at all."""
        rung = self._bells.take()
        if any(self._mirrors.known(dataset_id) is None for dataset_id in rung):
            self._due.pop((None, "discover"), None)  # a dataset that is new: look for it at once
        if self._is_due("poll", self._settings.mirror_poll_seconds):
            rung = {mirror.dataset.id for mirror in self._mirrors.all()}
        ready = {
            dataset_id: mirror.index.snapshot.watermark
            for dataset_id in rung
            if (mirror := self._mirrors.known(dataset_id)) is not None and mirror.index is not None
        }
        news = set(ready)
        if len(ready) > 1:
            async with self._database.read() as tx:
                news, now = await changes.with_unseen(tx, ready), await changes.watermark(tx)
            for dataset_id in ready.keys() - news if self._is_due("advance", ADVANCE_SECONDS) else ():
                if (mirror := self._mirrors.known(dataset_id)) is not None:
                    await mirror.nothing_between(ready[dataset_id], now)
        for dataset_id in news:
            if (mirror := self._mirrors.known(dataset_id)) is not None:  # or the dataset was deleted meanwhile
                await self._follow_one(mirror)

    async def _follow_one(self, mirror: Mirror) -> None:
        try:
            await mirror.catch_up()
        except OtherDatabaseError as error:
            logger.warning("mirror of another database identity", dataset=mirror.name, reason=str(error))
            mirror.distrust(str(error))
            self._in_background(mirror, "open", mirror.rebuild(str(error)))
        except NothingToMirrorError as error:
            mirror.fail(str(error))

    async def _do_chores(self) -> None:
        if self._is_due("discover", DISCOVER_SECONDS):
            await self._discover(first=not self._mirrors.all())
        if self._is_due("tell", REPORT_SECONDS):
            await self._tell()
        doubtful = self._breaks != self._database.breaks
        self._breaks = self._database.breaks
        for mirror in [m for m in self._mirrors.all() if m.index is not None and not self._stopping]:
            self._look_after(mirror, doubtful=doubtful)

    async def _discover(self, *, first: bool) -> None:
        """Open what is new, forget what is gone. At the start all are opened before anything else happens."""
        async with self._database.read() as tx:
            live = {dataset.id: dataset for dataset in await datasets.live(tx)}
            active = await changes.feed_state(tx, next(iter(live), UUID(int=0)))
        for mirror in [m for m in self._mirrors.all() if m.dataset.id not in live]:
            await self._mirrors.remove_files(self._mirrors.forget(mirror.dataset.id).dataset)
        if active is None:
            return
        if self._is_due("collect", self._settings.mirror_check_seconds):
            await self._collect(live.values(), active.identity)
        # also one that somebody built before the first look: every mirror is compared once
        unseen = [m for m in map(self._mirrors.mirror, live.values()) if m.index is None or m.last_check is None]
        waiting = [
            m for m in unseen if m.state != "dropped" and self._is_due("open", 2.0 ** min(m.failures, 8), m.dataset.id)
        ]
        opened = [self._in_background(mirror, "open", self._opened(mirror)) for mirror in waiting]
        if first:
            await asyncio.gather(*opened)

    async def _opened(self, mirror: Mirror) -> None:
        await mirror.open()
        self._mirrors.keep_to_budget(mirror)
        if mirror.index is not None:
            await self._check(mirror, asked=False)

    async def _collect(self, live: Iterable[Dataset], identity: DatabaseIdentity) -> None:
        try:
            await asyncio.to_thread(self._mirrors.folder.collect, [(d.project_id, d.id) for d in live], of=identity)
        except MirrorFolderError as error:
            logger.warning("old files of mirrors stay", reason=str(error))

    def _look_after(self, mirror: Mirror, *, doubtful: bool) -> None:
        """What is due for one mirror, each at most once at a time, all beside the searches.

        A crash of the server can give the id of a transaction that was rolled back to another one, which the watermark
        then takes for seen: after a lost connection the feed alone is not believed.
        """
        key = mirror.dataset.id
        if mirror.index is not None and (reason := mirror.index.compaction_due()):
            self._in_background(mirror, "build", mirror.rebuild(reason))
        if self._is_due("check", self._settings.mirror_check_seconds, key, at_once=False) or doubtful:
            self._in_background(mirror, "check", self._checked_and_pruned(mirror))
        if self._is_due("recall", self._settings.mirror_recall_seconds, key, at_once=False):
            self._in_background(mirror, "recall", measure(self._database, mirror))

    def _is_due(self, what: str, seconds: float, of: UUID | None = None, *, at_once: bool = True) -> bool:
        now = monotonic()
        due = self._due.setdefault((of, what), now if at_once else now + seconds)
        if now < due:
            return False
        self._due[of, what] = now + seconds
        return True

    def _in_background(self, mirror: Mirror, what: str, work: Awaitable[object]) -> "asyncio.Task[None]":
        """Start it, unless the same is at work for the same mirror."""
        key = (mirror.dataset.id, what)
        running = self._behind.get(key)
        if running is not None:
            if asyncio.iscoroutine(work):
                work.close()
            return running
        task = asyncio.create_task(self._mirrors.guarded(mirror, work))
        self._behind[key] = task
        task.add_done_callback(lambda _: self._behind.pop(key, None))
        return task

    async def _check(self, mirror: Mirror, *, asked: bool) -> None:
        found = await self._mirrors.check(mirror.dataset, deep=asked)  # opens it first where it was dropped
        async with self._database.transaction() as tx:
            await mirrors.report(tx, self._mirrors.holder, self._told())
        # not in the transaction that told: a row that is written twice in one has its dataset locked again,
        # by PostgreSQL's check of the foreign key, and whoever deletes the dataset meanwhile meets that in a deadlock
        async with self._database.transaction() as tx:
            await mirrors.record_check(
                tx,
                self._mirrors.holder,
                mirror.dataset.id,
                missing=found.missing,
                extra=found.extra,
                stale=found.stale,
                answer=asked,
            )

    async def _checked_and_pruned(self, mirror: Mirror) -> None:
        """The check, and then tombstones that every live mirror has seen are forgotten."""
        await self._check(mirror, asked=False)
        async with self._database.transaction() as tx:
            lowest = await mirrors.lowest_watermark(tx, mirror.dataset.id)
            if lowest is not None:
                await changes.prune(tx, mirror.dataset.id, Watermark.parse(lowest).xmin)

    async def _tell(self) -> None:
        """Say how far everything is; hear what is asked."""
        async with self._database.transaction() as tx:
            asked = await mirrors.report(tx, self._mirrors.holder, self._told())
        for dataset_id, what in asked.items():
            if (mirror := self._mirrors.known(dataset_id)) is not None:
                self._in_background(mirror, "asked", self._answer(mirror, what))

    async def _answer(self, mirror: Mirror, what: str) -> None:
        try:
            if what != "check":
                await mirror.rebuild(f"{what} was asked for")
            await self._check(mirror, asked=True)
        except Exception:
            async with self._database.transaction() as tx:
                await mirrors.decline(tx, self._mirrors.holder, mirror.dataset.id)
            raise

    def _told(self) -> list[MirrorProgress]:
        return [
            MirrorProgress(
                mirror.dataset.id,
                mirror.state,
                mirror.reason,
                0 if mirror.index is None else len(mirror.index),
                mirror.memory,
                None if mirror.index is None else str(mirror.index.snapshot.watermark),
            )
            for mirror in self._mirrors.all()
        ]

    async def _leave(self) -> None:
        """The end of following: give up what runs, save small mirrors, and say goodbye."""
        with self._mirrors.giving_up():
            await asyncio.gather(*self._behind.values(), return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_seconds / 2):
                for mirror in self._mirrors.all():
                    await self._mirrors.guarded(mirror, mirror.save())
        try:
            async with self._database.transaction() as tx:
                await mirrors.remove_holder(tx, self._mirrors.holder)
        except EvervecError as error:
            logger.info("left without a word", reason=str(error))
