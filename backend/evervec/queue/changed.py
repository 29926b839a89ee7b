"""The doorbell of the mirrors: every process that follows hears which datasets have new vectors. Core NATS, not JetStream.

A bell that nobody hears is not kept: whoever follows also looks by itself, a little later.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from uuid import UUID

from nats.aio.msg import Msg

from evervec import log
from evervec.queue.broker import JetStreamBroker
from evervec.queue.jetstream.connection import LINE_TROUBLE

logger = log.get("queue")


async def ring_changed(broker: JetStreamBroker, dataset_ids: Iterable[UUID]) -> bool:
    """Tell everybody who follows that vectors of these datasets were written; whether it left. Waits for nobody."""
    ids = ",".join(str(dataset_id) for dataset_id in dataset_ids)
    if not ids or not broker.connected:
        return False
    try:
        await broker.client.publish(broker.layout.changed, ids.encode())
    except LINE_TROUBLE as error:
        logger.info("mirrors will find out by themselves", reason=str(error))
        return False
    return True


@contextlib.asynccontextmanager
async def hearing_changes(broker: JetStreamBroker, heard: Callable[[set[UUID]], None]) -> AsyncIterator[bool]:
    """While inside, `heard` is called with the dataset ids of each bell; yields whether NATS is there to hear by."""

    async def on_message(message: Msg) -> None:
        try:
            heard({UUID(text) for text in message.data.decode().split(",")})
        except ValueError:
            logger.warning("a bell that is no list of dataset ids", subject=message.subject)

    if not broker.connected:
        yield False
        return
    subscription = await broker.client.subscribe(broker.layout.changed, cb=on_message)
    try:
        yield True
    finally:
        with contextlib.suppress(*LINE_TROUBLE):
            await subscription.unsubscribe()
