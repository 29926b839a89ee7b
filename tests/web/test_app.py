"""The HTTP API: the same answers as the command line, and a status for each thing that can be wrong."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from evervec.errors import PortTakenError, Refused
from evervec.pipeline.resources import Resources
from evervec.queue.broker import JetStreamBroker
from evervec.queue.nats_doorbell import NatsDoorbell
from evervec.settings import Settings
from evervec.store.datasets import DatasetRef
from evervec.web.app import create_app
from evervec.web.serve import listen
from tests.pipeline.search.test_search import fill


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(resources))
    async with httpx.AsyncClient(transport=transport, base_url="http://evervec") as opened:
        yield opened


async def test_search_answers_as_the_command_line_does(
    client: httpx.AsyncClient, resources: Resources, dataset: DatasetRef
) -> None:
    ids = await fill(resources, dataset, ["one", "two"])
    answer = (await client.get("/v1/search", params={"q": "one", "dataset": "log", "k": 1})).json()
    assert {"engine", "watermark", "pending_in_scope", "milliseconds", "hits"} <= set(answer)
    assert {"kind", "id", "dataset", "score", "text"} <= set(answer["hits"][0])
    assert answer["hits"][0]["id"] == ids[0]
    status = (await client.get("/v1/status")).json()
    assert (status["rows"], status["embedded"], status["pending"]) == (2, 2, 0)


async def test_mirrors_are_shown_checked_and_built(
    client: httpx.AsyncClient, resources: Resources, dataset: DatasetRef
) -> None:
    await fill(resources, dataset, ["one", "two"])
    missing = (await client.post("/v1/mirrors/log/check")).json()
    assert (missing["in_sync"], missing["datasets"][0]["missing"]) == (False, 2)
    assert (await client.post("/v1/mirrors/log/check")).json()["in_sync"] is True
    built = (await client.post("/v1/mirrors/log/rebuild")).json()
    assert (built["holds"], built["datasets"][0]["vectors"]) == (True, 2)
    assert (await client.get("/v1/mirrors")).json()["datasets"][0]["state"] == "at rest"
    assert (await client.get("/v1/status")).json()["datasets"][0]["mirror"]["vectors"] == 2
    assert (await client.post("/v1/mirrors/nope/check")).status_code == 404


async def test_a_search_takes_an_engine_and_a_watermark(
    client: httpx.AsyncClient, resources: Resources, dataset: DatasetRef
) -> None:
    await fill(resources, dataset, ["one", "two"])
    await client.post("/v1/mirrors/log/rebuild")
    async with resources.database.transaction() as tx:
        seen = int(await tx.fetchval("SELECT pg_current_xact_id()::text"))
    given = {"q": "one", "min_watermark": str(seen), "wait_seconds": "5"}
    for engine in ("mirror", "exact"):
        answer = (await client.get("/v1/search", params=given | {"engine": engine})).json()
        assert (answer["engine"], answer["hits"][0]["text"]) == (engine, "one")
        assert int(answer["watermark"]) > seen


async def test_a_search_takes_a_condition_and_says_what_is_wrong_with_one(
    client: httpx.AsyncClient, resources: Resources, dataset: DatasetRef
) -> None:
    ids = await fill(resources, dataset, [f"text {n}" for n in range(20)])
    where = {"op": "in", "field": "id", "values": ids[5:7]}
    for given in (where, f"id IN ({ids[5]}, {ids[6]})"):
        answer = (await client.post("/v1/search", json={"q": "text 5", "where": given, "snippets": True})).json()
        assert {hit["id"] for hit in answer["hits"]} == set(ids[5:7])
        assert "«5»" in answer["hits"][0]["snippet"]
    answer = (await client.get("/v1/search", params={"q": "text 5", "where": f"id = {ids[5]}", "mode": "words"})).json()
    assert ([hit["id"] for hit in answer["hits"]], answer["mode"]) == ([ids[5]], "words")


DEEP = '{"q": "x", "where": ' + '{"op": "not", "of": ' * 10_000 + '{"op": "missing", "field": "id"}' + "}" * 10_001


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        DEEP,
        '{"k": 3}',
        '{"q": "x", "kk": 3}',
        '{"q": "x", "k": 0}',
        '{"q": "x", "k": 1e400}',
        '{"q": " "}',
        '{"q": "x", "mode": "bm25"}',
        '{"q": "x", "where": "autor = 3"}',
        '{"q": "x", "where": {"op": "eq", "field": "id; DROP TABLE messages", "value": 1}}',
        '{"q": "x", "where": {"op": "eq", "field": "author", "value": "a\\u0000"}}',
        '{"q": "x", "least_similarity": 7}',
        '{"q": "x", "context": -1}',
    ],
)
async def test_a_body_that_is_no_search_is_refused(client: httpx.AsyncClient, dataset: DatasetRef, body: str) -> None:
    answer = await client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert set(answer.json()["error"]) == {"code", "message"}


async def test_probes_tell_alive_from_ready_and_say_what_is_missing(
    client: httpx.AsyncClient, resources: Resources, psql: Any
) -> None:
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["missing"]) == (200, True, [])
    assert any("No worker listens" in one for one in ready.json()["degraded"])
    await psql.execute("UPDATE alembic_version SET version_num = '0001'")
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert "0001" in ready.json()["missing"][0]
    await resources.database.aclose()
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert "127.0.0.1" not in ready.text and "postgresql" not in ready.text
    assert (await client.get("/healthz")).json() == {"status": "alive"}


async def test_a_queue_that_is_down_stops_no_search_and_is_told_without_its_address(resources: Resources) -> None:
    deaf = JetStreamBroker("nats://user:secret@127.0.0.1:1", stream="SILENCE")
    transport = httpx.ASGITransport(create_app(replace(resources, broker=deaf, doorbell=NatsDoorbell(deaf))))
    async with httpx.AsyncClient(transport=transport, base_url="http://evervec") as opened:
        ready = await opened.get("/readyz")
    assert (ready.status_code, ready.json()["degraded"]) == (200, ["The queue (nats) is down."])


async def test_probes_need_no_key(resources: Resources) -> None:
    settings = resources.settings.model_copy(update={"api_key": SecretStr("key")})
    transport = httpx.ASGITransport(create_app(replace(resources, settings=settings)))
    async with httpx.AsyncClient(transport=transport, base_url="http://evervec") as opened:
        assert [(await opened.get(path)).status_code for path in ("/healthz", "/readyz", "/v1/status")] == [
            200,
            200,
            401,
        ]


async def test_health_says_whether_the_database_answers(client: httpx.AsyncClient, resources: Resources) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    await resources.database.aclose()
    assert (await client.get("/health")).status_code == 503


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"q": " "}, 422),
        ({"q": "x", "k": "0"}, 422),
        ({"q": "x", "dataset": "nope"}, 404),
        ({"q": "x", "kind": "cat"}, 422),
        ({"q": "x", "engine": "steam"}, 422),
        ({"q": "x", "min_watermark": "99999999"}, 422),
        ({"q": "x", "min_watermark": "0"}, 422),
        ({"q": "x", "wait_seconds": "-1"}, 422),
    ],
)
async def test_a_wrong_question_has_a_status_and_a_message(
    client: httpx.AsyncClient, params: dict[str, str], status: int
) -> None:
    answer = await client.get("/v1/search", params=params)
    assert answer.status_code == status
    assert answer.json()


async def test_with_a_key_set_only_the_key_opens(resources: Resources) -> None:
    keyed = Settings(home=resources.settings.home, api_key=SecretStr("s3cret"))
    app = create_app(replace(resources, settings=keyed))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://evervec") as client:
        assert (await client.get("/v1/status")).status_code == 401
        assert (await client.get("/v1/status", headers={"X-API-KEY": "wrong"})).status_code == 401
        assert (await client.get("/v1/status", headers={"X-API-KEY": "s3cret"})).status_code == 200
        assert (await client.get("/health")).status_code == 200


def test_an_open_address_needs_a_key_and_a_taken_port_is_named(settings: Settings) -> None:
    with pytest.raises(Refused, match="EVERVEC_API_KEY"):
        listen(settings.model_copy(update={"api_host": "0.0.0.0"}))
    with listen(settings.model_copy(update={"api_port": 0})) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match="EVERVEC_API_PORT"):
            listen(settings.model_copy(update={"api_port": port}))
