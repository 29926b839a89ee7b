"""The worker's side: tasks that can not run become dead letters, unfinished ones go to other workers."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from taskiq import AckableMessage, TaskiqMessage
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from evervec import log
from evervec.errors import QueueDownError
from evervec.queue import dead_letters
from evervec.queue.arguments import argument_problem
from evervec.queue.broker import DeliveredMessage, JetStreamBroker
from evervec.queue.exhausted_tasks import move_exhausted_tasks
from evervec.queue.jetstream.delivery import Delivery

logger = log.get("queue")

_RETRY_SECONDS = 1.0


class JetStreamReceiver(Receiver):
    """A runner of tasks. One that raised is acknowledged too, because its retry is a row in PostgreSQL."""

    broker: JetStreamBroker

    def __init__(self, broker: JetStreamBroker, *, max_async_tasks: int, **options: Any) -> None:
        super().__init__(broker, max_async_tasks=max_async_tasks, **options)
        broker.capacity = max_async_tasks
        self._running: set[asyncio.Task[Any]] = set()

    async def callback(self, message: bytes | AckableMessage, raise_err: bool = False) -> None:
        """Run one task, or make it a dead letter if this worker can not run it."""
        if not isinstance(message, DeliveredMessage):
            raise TypeError("JetStreamReceiver takes messages of a JetStreamBroker only")
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            await self._run(message, raise_err)
        except Exception:
            logger.exception("task failed before it was acknowledged", seq=message.delivery.seq)
        finally:
            await message.delivery.nak(_RETRY_SECONDS)

    async def _run(self, message: DeliveredMessage, raise_err: bool) -> None:
        try:
            found = self.broker.formatter.loads(message=message.data)
            found.parse_labels()
        except Exception as error:
            # Whatever a payload does to the parser, the task must not be lost.
            return await self._move_to_dead_letters(message.delivery, "unreadable", f"unreadable payload: {error}")
        if reason := self._problem(found):
            return await self._move_to_dead_letters(message.delivery, found.task_name, reason)
        return await super().callback(message, raise_err)

    def _problem(self, message: TaskiqMessage) -> str | None:
        task = self.broker.find_task(message.task_name)
        if task is None:
            return f"unknown task {message.task_name!r}"
        return argument_problem(task.original_func, message)

    async def _move_to_dead_letters(self, delivery: Delivery, task_name: str, reason: str) -> None:
        try:
            await dead_letters.move_to_dead_letters(self.broker, delivery, task_name, reason)
        except QueueDownError as error:
            logger.warning("dead letter not stored, task stays in its lane", seq=delivery.seq, error=str(error))
            return
        logger.error("task moved to dead letters", seq=delivery.seq, task=task_name, reason=reason)

    async def abandon(self) -> None:
        """Cancel the tasks that still run, and release their messages to other workers at once."""
        await self.broker.release_unsettled()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def serve(
    broker: JetStreamBroker, *, max_async_tasks: int, wait_tasks_timeout: float, finish: asyncio.Event
) -> None:
    """Run tasks until `finish` is set; then wait `wait_tasks_timeout` seconds for them and release the rest.

    A broker that the caller did not start is started and stopped here. It goes on after a restart of NATS.
    Raise QueueDownError when NATS does not answer at the start, or closes this client's connection for good.
    """
    ours = not broker.started
    if ours:
        broker.is_worker_process = True
        await broker.startup()
    exhausted = asyncio.create_task(move_exhausted_tasks(broker))
    try:
        await _receive(broker, max_async_tasks, wait_tasks_timeout, finish)
    finally:
        exhausted.cancel()
        await asyncio.gather(exhausted, return_exceptions=True)
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
        # TaskIQ's task group wraps the error that ended the listening; the caller gets that error itself.
        raise group.exceptions[0] from group
    finally:
        await receiver.abandon()
        threads.shutdown(wait=False, cancel_futures=True)
