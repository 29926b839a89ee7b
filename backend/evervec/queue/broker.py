"""The TaskIQ broker over JetStream: connects, keeps the streams as they must be, sends and receives tasks."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Final

from nats.aio.client import Client
from nats.js.api import PubAck
from pydantic import InstanceOf
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq_nats import PullBasedJetStreamBroker

from evervec import log
from evervec.errors import QueueDownError
from evervec.queue.jetstream import headers, streams
from evervec.queue.jetstream.connection import LINE_TROUBLE, Connection
from evervec.queue.jetstream.delivery import Delivery, Held
from evervec.queue.jetstream.intake import Intake
from evervec.queue.jetstream.publisher import Publisher
from evervec.queue.names import Lane, Layout

logger = log.get("queue")

_SUSPECT_FROM: Final = 3


class HeldMessage(AckableMessage):
    """What the receiver gets: TaskIQ's body and ack, and the delivery behind them."""

    delivery: InstanceOf[Delivery]


class JetStreamBroker(PullBasedJetStreamBroker):
    """A pull broker with lanes, heartbeats, deduplication and a place for tasks that nobody can run.

    `ack_wait` is how long a dead worker's tasks are missing (seconds); a living worker's are kept alive up to
    `hold_seconds`. `fetch_batch` bounds one request, `capacity` (set by the receiver) what runs at once here.
    Starting and stopping may be repeated; a broker whose start failed can be started again.
    """

    def __init__(
        self,
        url: str,
        *,
        stream: str = "EVERVEC",
        ack_wait: float = 30.0,
        connect_seconds: float = 10.0,
        kick_seconds: float = 10.0,
        fetch_batch: int = 8,
        fetch_seconds: float = 5.0,
        hold_seconds: float = 3_600.0,
        duplicate_window: float = 600.0,
        lanes: tuple[streams.LanePlan, ...] = streams.LANES,
    ) -> None:
        super().__init__(url, stream_name=stream)
        self.layout: Final = Layout(stream)
        self.capacity = fetch_batch
        self.publisher: Publisher
        self._connection = Connection(url, self._line_changed)
        self._ack_wait = ack_wait
        self._connect_seconds = connect_seconds
        self._kick_seconds = kick_seconds
        self._fetch_batch = fetch_batch
        self._fetch_seconds = min(fetch_seconds, 5.0)
        self._hold_seconds = hold_seconds
        self._streams = streams.wanted_streams(self.layout, duplicate_window)
        self._lanes = lanes
        self._held: Held | None = None
        self._intake: Intake | None = None
        self._beats: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._started = False

    @property
    def connected(self) -> bool:
        """Whether a message sent now would leave at once."""
        return self._started and self.client.is_connected

    @property
    def started(self) -> bool:
        """Whether it was started and has a connection that is there, or comes back by itself."""
        return self._started and not self.client.is_closed

    def down(self, reason: str) -> QueueDownError:
        """The error for a server that does not answer, without credentials."""
        return self._connection.down(reason)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """For questions to the server: every way of getting no answer is a QueueDownError."""
        if not self.connected:
            raise self.down("not connected")
        try:
            yield
        except LINE_TROUBLE as error:
            raise self.down(str(error) or type(error).__name__) from error

    @property
    def held(self) -> Held:
        """The messages this process holds."""
        if self._held is None:
            self._held = Held(self._ack_wait, self._hold_seconds)
        return self._held

    async def startup(self) -> None:
        """Connect and bring the streams (a worker: also the consumers) to what is wanted.

        Raises QueueDownError within `connect_seconds`, and StreamMismatchError for a stream of another kind.
        """
        async with self._lock:
            if self.started:
                return
            self.client = Client()  # type: ignore[misc]  # final for the superclass, but a closed client is dead
            await self._connection.open(self.client, self._connect_seconds)
            self.js = self.client.jetstream()
            self.publisher = Publisher(self.js, self._repair_streams, self.down)
            try:
                await self._prepare()
            except BaseException:
                await self._connection.close(self.client)
                raise
            self._started = True
        # The superclass would connect a second time; its own superclass holds the events and middlewares.
        await AsyncBroker.startup(self)

    async def _prepare(self) -> None:
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._until_ready()
        except TimeoutError as error:
            raise self.down(f"JetStream is not ready: {self._connection.last_error}") from error

    async def _until_ready(self) -> None:
        """A server that was just started answers for a moment before its JetStream does."""
        while True:
            try:
                await self._add_or_reuse_stream()
                return await self._startup_consumer()
            except LINE_TROUBLE as error:
                self._connection.last_error = str(error) or type(error).__name__
                await asyncio.sleep(0.1)

    async def _add_or_reuse_stream(self) -> None:
        await streams.ensure_streams(self.js, self._streams)

    async def _startup_consumer(self) -> None:
        if self.is_worker_process:
            await self._ensure_consumers()

    async def _ensure_consumers(self) -> None:
        await streams.ensure_consumers(self.js, self.layout, self._lanes, self._ack_wait)

    async def shutdown(self) -> None:
        """Hand back what is held and close the connection; nothing happens if it is not started."""
        async with self._lock:
            if not self._started:
                return
            self._started = False
            await AsyncBroker.shutdown(self)
            await self.hand_back()
            await self._connection.close(self.client)

    async def hand_back(self) -> None:
        """Give back everything that this process still holds, so that another worker has it at once."""
        if self._beats is not None:
            self._beats.cancel()
            self._beats = None
        if returned := await self.held.hand_back():
            logger.warning("handed back unfinished tasks", tasks=returned)
        if self.client.is_connected:
            with contextlib.suppress(*LINE_TROUBLE):
                await self.client.flush(timeout=2)

    async def kick(self, message: BrokerMessage) -> None:
        """Send a task. Labels: `lane` chooses the queue, `msg_id` is what duplicates are known by.

        Raises QueueDownError when no acknowledgement came within `kick_seconds`.
        """
        subject = self.layout.lane(Lane(message.labels.get("lane", Lane.INTERACTIVE)))
        found = headers.of_task(message.task_id, message.task_name, message.labels)
        await self.publish(subject, message.message, found)

    async def publish(self, subject: str, body: bytes, found: Mapping[str, str]) -> PubAck:
        """Publish with the broker's own deadline. Raises QueueDownError."""
        if not self.started:
            raise self.down("not connected")
        return await self.publisher.publish(subject, body, found, seconds=self._kick_seconds)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield tasks while they are asked for; on the way out, hand back what did not begin."""
        self._intake = self._new_intake()
        # Heartbeats outlive the listening: what runs at a stop is still ours until it is finished or handed back.
        self._beats = self._beats or asyncio.create_task(self.held.keep_alive())
        await self._recreate()
        try:
            while True:
                delivery = await self._intake.next(self._recreate)
                if delivery.lane is not Lane.QUARANTINE and delivery.deliveries >= _SUSPECT_FROM:
                    await self._quarantine(delivery)
                    continue
                delivery.executing = True
                yield HeldMessage(data=delivery.message.data, ack=delivery.ack, delivery=delivery)
        finally:
            await self._intake.close()

    def _new_intake(self) -> Intake:
        batch, expires = self._fetch_batch, self._fetch_seconds
        return Intake(self.client, self.layout, self.held, batch=batch, expires=expires, room=self._room)

    def _room(self) -> int:
        return self.capacity - self.held.executing()

    async def _quarantine(self, delivery: Delivery) -> None:
        """Workers died over this one, or over its neighbour: it may run again, but alone."""
        found = headers.carried(delivery.message.headers)
        found |= {headers.MSG_ID: f"q:{delivery.seq}", headers.LANE: str(delivery.lane)}
        try:
            await self.publish(self.layout.lane(Lane.QUARANTINE), delivery.message.data, found)
        except QueueDownError:
            return await delivery.nak(1.0)
        logger.warning("task moved to quarantine", seq=delivery.seq, deliveries=delivery.deliveries)
        return await delivery.ack()

    async def _recreate(self) -> None:
        """Streams and consumers as they must be, whoever removed them meanwhile."""
        if self.client.is_closed:
            raise self.down("the server closed the connection for good")
        try:
            await self._add_or_reuse_stream()
            await self._ensure_consumers()
        except LINE_TROUBLE as error:
            logger.info("consumers not ready", error=str(error))
            await asyncio.sleep(0.3)
            return
        if self._intake is not None:
            self._intake.forget()

    async def _repair_streams(self) -> None:
        with contextlib.suppress(*LINE_TROUBLE):
            await self._add_or_reuse_stream()

    def _line_changed(self) -> None:
        if self._intake is not None:
            self._intake.forget()
