"""The broker of a process without NATS: nothing is queued, so nothing can be lost in a queue."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from taskiq import AckableMessage, AsyncBroker, BrokerMessage, TaskiqMessage, TaskiqResult
from taskiq.exceptions import UnknownTaskError
from taskiq.receiver import Receiver

from evervec.errors import Refused
from evervec.queue.arguments import argument_problem
from evervec.queue.names import HINTS

_MOST_AT_ONCE: Final = 32

_outcome: ContextVar[BaseException | None] = ContextVar("outcome", default=None)


class InPlaceBroker(AsyncBroker):
    """A broker that turns hints into rings, and runs every other task in the process that sends it.

    `.kiq()` of a task in `names.HINTS` rings for all datasets: the workers find the rows in the database. Another task's
    arguments are the only copy of what it is to do, so it has ended when `.kiq()` returns, and its error is `.kiq()`'s.
    """

    def __init__(self, ring: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._ring = ring
        self._receiver: _Receiver | None = None

    async def kick(self, message: BrokerMessage) -> None:
        """Ring, or run the task to its end.

        Raise UnknownTaskError, `Refused` for arguments that do not fit, and what the task raises.
        """
        task = self.find_task(message.task_name)
        if task is None:
            raise UnknownTaskError(task_name=message.task_name)
        if reason := argument_problem(task.original_func, self.formatter.loads(message.message)):
            raise Refused(reason=f"{message.task_name}: {reason}.")
        if message.task_name in HINTS:
            await self._ring()
            return
        self._receiver = self._receiver or _Receiver(self, max_async_tasks=_MOST_AT_ONCE, run_startup=False)
        _outcome.set(None)
        await self._receiver.callback(message.message)
        if (error := _outcome.get()) is not None:
            raise error

    async def listen(self) -> AsyncGenerator[bytes | AckableMessage, None]:
        """Raise: workers hear rings, not tasks."""
        raise Refused(reason="Without NATS no task waits for a worker.")
        yield b""


class _Receiver(Receiver):
    """TaskIQ's runner of tasks, which hands on the error of the task that it ran."""

    async def run_task(
        self, target: Callable[..., Any], message: TaskiqMessage, *rest: Any, **more: Any
    ) -> TaskiqResult[Any]:
        result: TaskiqResult[Any] = await super().run_task(target, message, *rest, **more)
        _outcome.set(result.error if result.is_err else None)
        return result
