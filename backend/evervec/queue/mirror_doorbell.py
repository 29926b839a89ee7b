"""The doorbell of the mirrors: every process with mirrors is told which datasets have new vectors.

Core NATS, not JetStream: nothing is stored for a process that does not listen, which looks by itself a little later.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from uuid import UUID

from nats.aio.msg import Msg

from evervec import log
from evervec.queue.broker import JetStreamBroker
from evervec.queue.jetstream.connection import CONNECTION_ERRORS

logger = log.get("queue")


async def ring_mirrors(broker: JetStreamBroker, dataset_ids: Iterable[UUID]) -> bool:
    """Tell every process with mirrors that vectors of these datasets were written. Return whether it was sent."""
    ids = ",".join(str(dataset_id) for dataset_id in dataset_ids)
    if not ids or not broker.connected:
        return False
    try:
        await broker.client.publish(broker.layout.changed, ids.encode())
    except CONNECTION_ERRORS as error:
        logger.info("mirror doorbell not sent", reason=str(error))
        return False
    return True


@contextlib.asynccontextmanager
async def listening_for_changes(broker: JetStreamBroker, heard: Callable[[set[UUID]], None]) -> AsyncIterator[bool]:
    """Call `heard` with the dataset ids of each doorbell inside the block. Yield whether NATS is connected."""

    async def on_message(message: Msg) -> None:
        try:
            heard({UUID(text) for text in message.data.decode().split(",")})
        except ValueError:
            logger.warning("mirror doorbell without dataset ids", subject=message.subject)

    if not broker.connected:
        yield False
        return
    subscription = await broker.client.subscribe(broker.layout.changed, cb=on_message)
    try:
        yield True
    finally:
        with contextlib.suppress(*CONNECTION_ERRORS):
            await subscription.unsubscribe()
