"""The worker's side: what can not be run is set aside, what did not end is handed back, nothing is left behind."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from taskiq import AckableMessage, TaskiqMessage
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from evervec import log
from evervec.errors import QueueDownError
from evervec.queue import dead_letters
from evervec.queue.arguments import refusal
from evervec.queue.broker import HeldMessage, JetStreamBroker
from evervec.queue.jetstream.delivery import Delivery
from evervec.queue.mover import move_exhausted

logger = log.get("queue")

_RETRY_SECONDS = 1.0


class JetStreamReceiver(Receiver):
    """Runs tasks of a JetStreamBroker; a task that raised is acknowledged, because retries live in PostgreSQL."""

    broker: JetStreamBroker

    def __init__(self, broker: JetStreamBroker, *, max_async_tasks: int, **options: Any) -> None:
        super().__init__(broker, max_async_tasks=max_async_tasks, **options)
        broker.capacity = max_async_tasks
        self._running: set[asyncio.Task[Any]] = set()

    async def callback(self, message: bytes | AckableMessage, raise_err: bool = False) -> None:
        """Run one task, or set it aside as a dead letter if nobody here can run it."""
        if not isinstance(message, HeldMessage):
            raise TypeError("JetStreamReceiver takes messages of a JetStreamBroker only")
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            await self._run(message, raise_err)
        except Exception:
            logger.exception("task broke off before it was acknowledged", seq=message.delivery.seq)
        finally:
            await message.delivery.nak(_RETRY_SECONDS)

    async def _run(self, message: HeldMessage, raise_err: bool) -> None:
        try:
            found = self.broker.formatter.loads(message=message.data)
            found.parse_labels()
        except Exception as error:
            # Whatever a payload does to the parser, it must not be lost.
            return await self._set_aside(message.delivery, "unreadable", f"unreadable payload: {error}")
        if reason := self._unfit(found):
            return await self._set_aside(message.delivery, found.task_name, reason)
        return await super().callback(message, raise_err)

    def _unfit(self, message: TaskiqMessage) -> str | None:
        task = self.broker.find_task(message.task_name)
        if task is None:
            return f"unknown task {message.task_name!r}"
        return refusal(task.original_func, message)

    async def _set_aside(self, delivery: Delivery, task_name: str, reason: str) -> None:
        try:
            await dead_letters.bury(self.broker, delivery, task_name, reason)
        except QueueDownError as error:
            logger.warning("dead letter not stored, it stays on its lane", seq=delivery.seq, error=str(error))
            return
        logger.error("task set aside", seq=delivery.seq, task=task_name, reason=reason)

    async def abandon(self) -> None:
        """Hand back what still runs and end it: its message goes to another worker at once."""
        await self.broker.hand_back()
        leaving = list(self._running)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)


async def serve(
    broker: JetStreamBroker, *, max_async_tasks: int, wait_tasks_timeout: float, finish: asyncio.Event
) -> None:
    """Run tasks until `finish` is set; then wait `wait_tasks_timeout` seconds for them and hand back the rest.

    A broker that the caller did not start is started and stopped here. Restarts of NATS are survived. Raises
    QueueDownError when NATS is not there at the start or throws this client out for good.
    """
    ours = not broker.started
    if ours:
        broker.is_worker_process = True
        await broker.startup()
    mover = asyncio.create_task(move_exhausted(broker))
    try:
        await _receive(broker, max_async_tasks, wait_tasks_timeout, finish)
    finally:
        mover.cancel()
        await asyncio.gather(mover, return_exceptions=True)
        if ours:
            await broker.shutdown()


async def _receive(
    broker: JetStreamBroker, max_async_tasks: int, wait_tasks_timeout: float, finish: asyncio.Event
) -> None:
    threads = ThreadPoolExecutor(max_async_tasks, thread_name_prefix="task")
    receiver = JetStreamReceiver(
        broker,
        executor=threads,
        max_async_tasks=max_async_tasks,
        run_startup=False,
        ack_type=AcknowledgeType.WHEN_EXECUTED,
        wait_tasks_timeout=wait_tasks_timeout,
    )
    try:
        await receiver.listen(finish)
    except BaseExceptionGroup as group:
        # TaskIQ's task group wraps what ended the listening; the caller wants the thing itself.
        raise group.exceptions[0] from group
    finally:
        await receiver.abandon()
        threads.shutdown(wait=False, cancel_futures=True)
