"""The three streams and the durable consumers: how they must be configured, and how the server is brought to that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError, ServerError

from evervec import log
from evervec.errors import StreamMismatchError
from evervec.queue.names import Lane, Layout

DAY: Final = 86_400.0
DUPLICATE_SECONDS: Final = 600.0
"""How long the id of a message is remembered, so that it is taken once."""

ADVISORY_CONSUMER: Final = "mover"
"""The durable consumer of the server's advisories; servers in use know it by this name."""

_CREATED_ELSEWHERE: Final = 10058
_CONSUMER_REFUSED: Final = 10012
# These decide whether a task can get lost. Replicas, placement and disk limits are left to the operator.
_CHECKED: Final = (
    "storage", "retention", "sealed", "deny_delete", "no_ack", "subjects", "duplicate_window", "max_age", "max_msgs",
    "max_bytes", "max_msgs_per_subject", "max_msg_size", "discard",
)  # fmt: skip
_FIXED: Final = ("storage", "retention", "sealed", "deny_delete")

logger = log.get("queue")


@dataclass(frozen=True)
class LanePlan:
    """The settings of one lane's consumer. `max_ack_pending` is how many of its tasks run at once on all workers."""

    lane: Lane
    max_deliver: int = 6
    max_ack_pending: int = 2_000


LANES: Final = (
    LanePlan(Lane.INTERACTIVE),
    LanePlan(Lane.BACKFILL),
    LanePlan(Lane.QUARANTINE, max_deliver=2, max_ack_pending=1),
)


def wanted_streams(layout: Layout, duplicate_window: float) -> tuple[StreamConfig, ...]:
    """Return the streams as they must be. The task stream has no limit, because a limit would drop tasks."""
    return (
        _stream(layout.stream, layout.tasks, RetentionPolicy.WORK_QUEUE, 0, duplicate_window),
        _stream(layout.dead_stream, layout.dead, RetentionPolicy.LIMITS, 30 * DAY, duplicate_window),
        _stream(layout.advisory_stream, layout.advisories, RetentionPolicy.LIMITS, 7 * DAY, 120),
    )


def _stream(name: str, subject: str, retention: RetentionPolicy, max_age: float, window: float) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subject],
        retention=retention,
        storage=StorageType.FILE,
        max_age=max_age,
        max_msgs=-1,
        max_bytes=-1,
        duplicate_window=window,
    )


async def ensure_streams(js: JetStreamContext, configs: Sequence[StreamConfig]) -> None:
    """Create each stream, or change it in place to what is wanted.

    Raise StreamMismatchError where the server can not change it, and nats errors while JetStream is not there.
    """
    for wanted in configs:
        try:
            found = (await js.stream_info(str(wanted.name))).config
        except NotFoundError:
            found = await _create(js, wanted)
        await _reconcile(js, found, wanted)


async def _create(js: JetStreamContext, wanted: StreamConfig) -> StreamConfig:
    try:
        return (await js.add_stream(wanted)).config
    except BadRequestError as refusal:
        if refusal.err_code != _CREATED_ELSEWHERE:
            taken = refusal.description or "refused"
            raise _mismatch(wanted, "subjects", f"<{taken}>", wanted.subjects) from refusal
        return (await js.stream_info(str(wanted.name))).config


async def _reconcile(js: JetStreamContext, found: StreamConfig, wanted: StreamConfig) -> None:
    drift = [name for name in _CHECKED if getattr(found, name) != getattr(wanted, name)]
    if not drift:
        return
    for name in drift:
        if name in _FIXED:
            raise _mismatch(wanted, name, getattr(found, name), getattr(wanted, name))
    changes = {name: getattr(wanted, name) for name in drift}
    try:
        await js.update_stream(found.evolve(**changes))
    except (BadRequestError, ServerError) as refusal:
        raise _mismatch(wanted, drift[0], getattr(found, drift[0]), getattr(wanted, drift[0])) from refusal
    logger.warning("stream changed in place", stream=wanted.name, **{n: str(v) for n, v in changes.items()})


def _mismatch(wanted: StreamConfig, field: str, found: object, needs: object) -> StreamMismatchError:
    return StreamMismatchError(stream=wanted.name, field=field, found=_plain(found), wanted=_plain(needs))


def _plain(value: object) -> object:
    return getattr(value, "value", value)


async def ensure_consumers(js: JetStreamContext, layout: Layout, plans: Sequence[LanePlan], ack_wait: float) -> None:
    """Create or update one durable consumer per lane, and the one that follows the advisories.

    Raise StreamMismatchError when a consumer that is there can not become what is wanted.
    """
    for plan in plans:
        config = _consumer(str(plan.lane), layout.lane(plan.lane), ack_wait, plan.max_deliver, plan.max_ack_pending)
        await _ensure_consumer(js, layout.stream, config)
    follower = _consumer(ADVISORY_CONSUMER, layout.advisories, ack_wait, -1, 100)
    await _ensure_consumer(js, layout.advisory_stream, follower)


def _consumer(name: str, subject: str, ack_wait: float, max_deliver: int, max_ack_pending: int) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=name,
        filter_subject=subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait,
        max_deliver=max_deliver,
        max_ack_pending=max_ack_pending,
    )


async def _ensure_consumer(js: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    try:
        await js.add_consumer(stream, config)
    except (BadRequestError, ServerError) as refusal:
        if isinstance(refusal, ServerError) and refusal.err_code != _CONSUMER_REFUSED:
            raise
        found = f"<{refusal.description}>"
        needs = f"a pull consumer on {config.filter_subject}"
        field = f"consumer {config.durable_name}"
        raise StreamMismatchError(stream=stream, field=field, found=found, wanted=needs) from refusal
