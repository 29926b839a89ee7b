"""Sending a task: once, with text headers, within a deadline."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from taskiq import Context, SendTaskError, SimpleRetryMiddleware, TaskiqDepends, async_shared_broker
from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware
from taskiq.result_backends.dummy import DummyResultBackend
from taskiq.serializers.json_serializer import JSONSerializer

import evervec.queue
from evervec.errors import QueueDownError
from evervec.queue.broker import JetStreamBroker
from evervec.queue.depth import depth
from evervec.queue.jetstream import headers
from evervec.queue.names import Lane
from tests.queue.conftest import Brokers
from tests.queue.servers import NatsServer, free_port
from tests.queue.waiting import eventually, working


async def test_the_same_message_id_is_stored_once(broker: JetStreamBroker) -> None:
    @broker.task(task_name="t")
    async def t() -> None: ...

    for _ in range(3):
        await t.kicker().with_labels(msg_id="same", lane=Lane.BACKFILL).kiq()
    assert (await depth(broker)).lanes == {Lane.INTERACTIVE: 0, Lane.BACKFILL: 1, Lane.QUARANTINE: 0}
    assert broker.publisher.duplicates == 2


async def test_a_retry_with_a_message_id_is_not_taken_for_a_duplicate(broker: JetStreamBroker) -> None:
    broker.add_middlewares(SimpleRetryMiddleware(default_retry_count=3))
    runs: list[int] = []

    @broker.task(task_name="t", retry_on_error=True)
    async def t() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("not yet")

    async with working(broker):
        await t.kicker().with_labels(msg_id="once").kiq()
        await eventually(lambda: len(runs) == 3)


async def test_a_requeue_with_number_labels_comes_back(broker: JetStreamBroker) -> None:
    runs: list[int] = []

    @broker.task(task_name="t", max_retries=3, weight=0.5)
    async def t(context: Annotated[Context, TaskiqDepends()]) -> None:
        runs.append(1)
        if len(runs) < 2:
            await context.requeue()

    async with working(broker):
        await t.kicker().with_labels(msg_id="once").kiq()  # type: ignore[call-overload]  # injected
        await eventually(lambda: len(runs) == 2)


def test_ids_differ_by_attempt_and_stay_the_same_for_the_same_sending() -> None:
    assert headers.message_id("id", {}) == headers.message_id("id", {"_retries": "0"}) == "id"
    assert headers.message_id("id", {"msg_id": "m", "_retries": 2}) == "m:retries=2"
    assert headers.message_id("id", {"msg_id": "m", "X-Taskiq-requeue": "1"}) == "m:X-Taskiq-requeue=1"


async def test_only_known_headers_leave_and_all_are_text(broker: JetStreamBroker) -> None:
    @broker.task(task_name="t", max_retries=3, weight=0.5)
    async def t() -> None: ...

    await t.kicker().with_labels(traceparent="00-a-b-01", secret="s\r\nX-Evil: 1").kiq()
    raw = await broker.js.get_msg("EVERVEC", seq=1)
    assert raw.headers is not None
    assert set(raw.headers) == {"Nats-Msg-Id", "X-Task", "X-Task-Id", "traceparent"}


async def test_a_lost_acknowledgement_is_asked_for_again_and_stores_the_task_once(
    brokers: Brokers, nats: NatsServer
) -> None:
    broker = brokers(kick_seconds=60.0)
    await broker.startup()

    @broker.task(task_name="t")
    async def t() -> None: ...

    nats.pause()
    sending = asyncio.create_task(t.kiq())
    done, _ = await asyncio.wait({sending}, timeout=2.3)
    assert not done, "a stopped server can not have answered"
    nats.resume()
    await sending
    assert (await depth(broker)).lanes[Lane.INTERACTIVE] == 1
    assert broker.publisher.duplicates >= 1


async def test_a_dead_server_is_told_after_the_deadline(brokers: Brokers, nats: NatsServer) -> None:
    broker = brokers(kick_seconds=0.6)
    await broker.startup()

    @broker.task(task_name="t")
    async def t() -> None: ...

    nats.kill()
    began = time.monotonic()
    with pytest.raises(SendTaskError) as caught:
        await t.kiq()
    assert isinstance(caught.value.__cause__, QueueDownError)
    assert 0.5 < time.monotonic() - began < 60
    nats.start()
    await eventually(lambda: broker.connected)
    await t.kiq()


async def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    broker = JetStreamBroker(f"nats://me:hunter2@127.0.0.1:{free_port()}", connect_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(QueueDownError, match=r"nats://127\.0\.0\.1:\d+ does not answer") as caught:
        await broker.startup()
    assert time.monotonic() - began < 60
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(broker.down("refused nats://me:hunter2@127.0.0.1"))
    await broker.shutdown()


async def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(QueueDownError):
        await JetStreamBroker("nats://[", connect_seconds=0.5).startup()


async def test_a_start_that_failed_can_be_repeated(nats: NatsServer) -> None:
    nats.kill()
    broker = JetStreamBroker(nats.url, connect_seconds=0.4)
    with pytest.raises(QueueDownError):
        await broker.startup()
    nats.start()

    async def started() -> bool:
        with suppress(QueueDownError):  # the server may answer too late
            await broker.startup()
        return broker.connected

    await eventually(started)
    await broker.startup()
    assert broker.connected
    await broker.shutdown()
    await broker.shutdown()


async def test_tracing_survives_the_way(broker: JetStreamBroker) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    broker.add_middlewares(OpenTelemetryMiddleware(tracer_provider=provider, meter_provider=MeterProvider()))

    @broker.task(task_name="t")
    async def t() -> None: ...

    async with working(broker):
        await t.kiq()
        await eventually(lambda: len(spans.get_finished_spans()) == 2)
    sent, executed = sorted(spans.get_finished_spans(), key=lambda s: s.kind == trace.SpanKind.CONSUMER)
    assert sent.context is not None
    assert executed.parent is not None
    assert executed.parent.span_id == sent.context.span_id


async def test_a_shared_task_leaves_through_the_default_broker(broker: JetStreamBroker) -> None:
    runs: list[list[int]] = []

    @async_shared_broker.task(task_name="shared_for_this_test")
    async def shared(ids: list[int]) -> None:
        runs.append(ids)

    async_shared_broker.default_broker(broker)
    try:
        async with working(broker):
            await shared.kiq(ids=[1, 2])
            await eventually(lambda: runs == [[1, 2]])
    finally:
        broker.global_task_registry.pop("shared_for_this_test")


def test_nothing_is_pickled() -> None:
    broker = JetStreamBroker("nats://127.0.0.1:1")
    assert type(broker.serializer) is JSONSerializer
    assert type(broker.result_backend) is DummyResultBackend
    for source in Path(evervec.queue.__path__[0]).glob("*.py"):
        assert "pickle" not in source.read_text().lower(), source
