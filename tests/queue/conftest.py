"""A nats-server and brokers for each test of the queue."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evervec.queue.broker import JetStreamBroker
from tests.queue.servers import NatsServer

Brokers = Callable[..., JetStreamBroker]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def brokers(nats: NatsServer) -> AsyncIterator[Brokers]:
    """Make brokers for the server; all are shut down in the end."""
    made: list[JetStreamBroker] = []

    def make(**options: Any) -> JetStreamBroker:
        made.append(JetStreamBroker(nats.url, **{"ack_wait": 60.0, "connect_seconds": 60.0, **options}))
        return made[-1]

    yield make
    for broker in made:
        await broker.shutdown()


@pytest.fixture
async def broker(brokers: Brokers) -> JetStreamBroker:
    """Return a started broker that is ready to work."""
    one = brokers()
    one.is_worker_process = True
    await one.startup()
    return one
