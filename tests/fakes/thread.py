"""The fake provider in a thread of its own, for tests whose clients are other processes or are not async."""

import asyncio
from threading import Event, Thread
from types import TracebackType
from typing import Any

from tests.fakes.server import FakeProvider


class FakeProviderThread:
    """`with FakeProviderThread(dims=64) as fake:` gives a running `FakeProvider`; its methods may be called here."""

    def __init__(self, **how: Any) -> None:
        self._how = how
        self._up = Event()
        self._fake: FakeProvider | None = None
        self._problem: BaseException | None = None
        self._thread = Thread(target=self._run, name="fake-provider", daemon=True)

    def __enter__(self) -> FakeProvider:
        self._thread.start()
        self._up.wait()
        if self._fake is None:
            raise RuntimeError("the fake provider did not start") from self._problem
        return self._fake

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with FakeProvider(**self._how) as fake:
                self._fake = fake
                self._up.set()
                await self._stop.wait()
        except OSError as problem:
            self._problem = problem
        finally:
            self._up.set()
