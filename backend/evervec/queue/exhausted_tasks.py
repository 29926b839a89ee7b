"""Tasks that were delivered too often: the server's advisories name them, and they are moved to the dead letters."""

import asyncio
import json
from contextlib import suppress

from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from evervec import log
from evervec.cancellation import raise_if_cancelled
from evervec.errors import QueueDownError
from evervec.queue import dead_letters
from evervec.queue.broker import JetStreamBroker
from evervec.queue.jetstream import headers
from evervec.queue.jetstream.connection import CONNECTION_ERRORS
from evervec.queue.jetstream.streams import ADVISORY_CONSUMER

logger = log.get("queue")

_FETCH_SECONDS = 5.0
_PAUSE = 1.0


async def move_exhausted_tasks(broker: JetStreamBroker) -> None:
    """Move them until cancelled or the broker is closed. A crash repeats a move, which is deduplicated."""
    # Not `while True`: on a closed connection nats-py turns a cancellation into an error of its own.
    while broker.started:
        raise_if_cancelled()
        try:
            # A fresh subscription each time: requests of an old one may be lost with a connection.
            subscription = await broker.js.pull_subscribe_bind(ADVISORY_CONSUMER, broker.layout.advisory_stream)
            try:
                for advisory in await subscription.fetch(batch=1, timeout=_FETCH_SECONDS):
                    await _handle(broker, advisory)
            finally:
                # Raised here, an error would swallow the cancellation on its way through.
                with suppress(*CONNECTION_ERRORS):
                    await subscription.unsubscribe()
        except TimeoutError:
            continue
        except (*CONNECTION_ERRORS, QueueDownError) as error:
            logger.info("advisories not read", error=str(error))
            await asyncio.sleep(_PAUSE)


async def _handle(broker: JetStreamBroker, advisory: Msg) -> None:
    fields = json.loads(advisory.data)
    seq = int(fields["stream_seq"])
    try:
        raw = await broker.js.get_msg(broker.layout.stream, seq=seq)
    except NotFoundError:
        # Another worker has moved it, or it was finished after all.
        return await advisory.ack()
    await _move(broker, raw, seq, int(fields["deliveries"]))
    return await advisory.ack()


async def _move(broker: JetStreamBroker, raw: RawStreamMsg, seq: int, deliveries: int) -> None:
    task_name = (raw.headers or {}).get(headers.TASK, "unnamed")
    about = {headers.SUBJECT: str(raw.subject), headers.DELIVERIES: str(deliveries)}
    reason = f"delivered {deliveries} times and never finished: it ends its worker, or takes longer than a worker lives"
    found = headers.carried(raw.headers) | about
    await dead_letters.add_dead_letter(broker, seq, task_name, reason, found, raw.data or b"")
    await broker.js.delete_msg(broker.layout.stream, seq)
    logger.error("task moved to dead letters", seq=seq, task=task_name, reason=reason)
