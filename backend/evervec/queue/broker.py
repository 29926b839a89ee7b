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
from evervec.queue.jetstream.connection import CONNECTION_ERRORS, Connection
from evervec.queue.jetstream.delivery import Delivery, UnsettledDeliveries
from evervec.queue.jetstream.lane_reader import LaneReader
from evervec.queue.jetstream.publisher import Publisher
from evervec.queue.names import Lane, Layout

logger = log.get("queue")

_SUSPECT_FROM: Final = 3


class DeliveredMessage(AckableMessage):
    """A message as the receiver gets it: TaskIQ's body and ack, and the delivery behind them."""

    delivery: InstanceOf[Delivery]


class JetStreamBroker(PullBasedJetStreamBroker):
    """A pull broker with lanes, heartbeats, deduplication and dead letters.

    `ack_wait` is after how many seconds a killed worker's tasks run elsewhere; a living worker's tasks are kept alive
    up to `hold_seconds`. `fetch_batch` bounds one request, `capacity` (set by the receiver) what runs at once here.
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
        duplicate_window: float = streams.DUPLICATE_SECONDS,
        lanes: tuple[streams.LanePlan, ...] = streams.LANES,
    ) -> None:
        super().__init__(url, stream_name=stream)
        self.layout: Final = Layout(stream)
        self.capacity = fetch_batch
        self.publisher: Publisher
        self._connection = Connection(url, self._connection_changed)
        self._ack_wait = ack_wait
        self._connect_seconds = connect_seconds
        self._kick_seconds = kick_seconds
        self._fetch_batch = fetch_batch
        self._fetch_seconds = min(fetch_seconds, 5.0)
        self._hold_seconds = hold_seconds
        self._streams = streams.wanted_streams(self.layout, duplicate_window)
        self._lanes = lanes
        self._unsettled: UnsettledDeliveries | None = None
        self._reader: LaneReader | None = None
        self._heartbeats: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._started = False

    @property
    def connected(self) -> bool:
        """Return whether a message can be sent now."""
        return self._started and self.client.is_connected

    @property
    def started(self) -> bool:
        """Return whether it was started and its connection is open, or will reconnect by itself."""
        return self._started and not self.client.is_closed

    def down(self, reason: str) -> QueueDownError:
        """Return the error for a server that does not answer, without credentials."""
        return self._connection.down(reason)

    @contextlib.contextmanager
    def connection_errors(self) -> Iterator[None]:
        """Raise QueueDownError for every way in which a request to the server gets no answer."""
        if not self.connected:
            raise self.down("not connected")
        with self._connection.errors():
            yield

    @property
    def unsettled(self) -> UnsettledDeliveries:
        """Return the messages that were delivered to this process and are not settled."""
        if self._unsettled is None:
            self._unsettled = UnsettledDeliveries(self._ack_wait, self._hold_seconds)
        return self._unsettled

    async def startup(self) -> None:
        """Connect and bring the streams (a worker: also the consumers) to what is wanted.

        Raise QueueDownError within `connect_seconds`, and StreamMismatchError for a stream of another kind.
        """
        async with self._lock:
            if self.started:
                return
            self.client = Client()  # type: ignore[misc]  # final for the superclass, but a closed client is dead
            await self._connection.open(self.client, self._connect_seconds)
            self.js = self.client.jetstream()
            self.publisher = Publisher(self.js, self._repair_streams, self.down)
            try:
                await self._connection.until_ready(self._prepare, self._connect_seconds)
            except BaseException:
                await self._connection.close(self.client)
                raise
            self._started = True
        # The superclass would connect a second time; its own superclass holds the events and middlewares.
        await AsyncBroker.startup(self)

    async def _prepare(self) -> None:
        await self._add_or_reuse_stream()
        await self._startup_consumer()

    async def _add_or_reuse_stream(self) -> None:
        await streams.ensure_streams(self.js, self._streams)

    async def _startup_consumer(self) -> None:
        if self.is_worker_process:
            await self._ensure_consumers()

    async def _ensure_consumers(self) -> None:
        await streams.ensure_consumers(self.js, self.layout, self._lanes, self._ack_wait)

    async def shutdown(self) -> None:
        """Release what is not settled and close the connection. Nothing happens if it is not started."""
        async with self._lock:
            if not self._started:
                return
            self._started = False
            await AsyncBroker.shutdown(self)
            await self.release_unsettled()
            await self._connection.close(self.client)

    async def release_unsettled(self) -> None:
        """Release everything that is not settled, so that another worker gets it at once."""
        if self._heartbeats is not None:
            self._heartbeats.cancel()
            self._heartbeats = None
        if returned := await self.unsettled.release():
            logger.warning("released unfinished tasks", tasks=returned)
        if self.client.is_connected:
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self.client.flush(timeout=2)

    async def kick(self, message: BrokerMessage) -> None:
        """Send a task. Labels: `lane` chooses the queue, `msg_id` is the id by which duplicates are recognised.

        Raise QueueDownError when no acknowledgement came within `kick_seconds`.
        """
        subject = self.layout.lane(Lane(message.labels.get("lane", Lane.INTERACTIVE)))
        found = headers.of_task(message.task_id, message.task_name, message.labels)
        await self.publish(subject, message.message, found)

    async def publish(self, subject: str, body: bytes, found: Mapping[str, str]) -> PubAck:
        """Publish with the broker's own deadline. Raise QueueDownError."""
        if not self.started:
            raise self.down("not connected")
        return await self.publisher.publish(subject, body, found, seconds=self._kick_seconds)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield tasks while they are asked for; at the end, release those that did not begin."""
        self._reader = self._new_reader()
        # Heartbeats go on after the listening: what runs at a stop is ours until it is finished or released.
        self._heartbeats = self._heartbeats or asyncio.create_task(self.unsettled.keep_alive())
        await self._recreate()
        try:
            while True:
                delivery = await self._reader.next(self._recreate)
                if delivery.lane is not Lane.QUARANTINE and delivery.deliveries >= _SUSPECT_FROM:
                    await self._quarantine(delivery)
                    continue
                delivery.executing = True
                yield DeliveredMessage(data=delivery.message.data, ack=delivery.ack, delivery=delivery)
        finally:
            await self._reader.close()

    def _new_reader(self) -> LaneReader:
        batch, expires = self._fetch_batch, self._fetch_seconds
        return LaneReader(self.client, self.layout, self.unsettled, batch=batch, expires=expires, room=self._room)

    def _room(self) -> int:
        return self.capacity - self.unsettled.executing()

    async def _quarantine(self, delivery: Delivery) -> None:
        """Move a task to the quarantine lane: it, or a task beside it, ended workers. It may run again, but alone."""
        found = headers.carried(delivery.message.headers)
        found |= {headers.MSG_ID: f"q:{delivery.seq}", headers.LANE: str(delivery.lane)}
        try:
            await self.publish(self.layout.lane(Lane.QUARANTINE), delivery.message.data, found)
        except QueueDownError:
            return await delivery.nak(1.0)
        logger.warning("task moved to quarantine", seq=delivery.seq, deliveries=delivery.deliveries)
        return await delivery.ack()

    async def _recreate(self) -> None:
        """Create again the streams and consumers that somebody removed meanwhile."""
        if self.client.is_closed:
            raise self.down("the server closed the connection for good")
        try:
            await self._add_or_reuse_stream()
            await self._ensure_consumers()
        except CONNECTION_ERRORS as error:
            logger.info("consumers not ready", error=str(error))
            await asyncio.sleep(0.3)
            return
        if self._reader is not None:
            self._reader.forget()

    async def _repair_streams(self) -> None:
        with contextlib.suppress(*CONNECTION_ERRORS):
            await self._add_or_reuse_stream()

    def _connection_changed(self) -> None:
        if self._reader is not None:
            self._reader.forget()
