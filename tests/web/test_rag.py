"""Indexing over HTTP: asked for, waited for, refused with a reason, followed in its status, counted in its metrics."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr, TypeAdapter

from evervec.pipeline.indexing import requests
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from evervec.store import datasets, secrets
from evervec.store.datasets import DatasetRef
from evervec.web import examples
from evervec.web.app import create_app
from evervec.web.index_request import IndexRequest
from tests.conftest import NUMBERS, Servers, _sql
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing import shop
from tests.pipeline.indexing.indexed import ingest, put, versions
from tests.pipeline.indexing.shop import described, keep, notes, open_shop

INDEX, STATUS, METRICS = "/v1/rag/index/p/orders", "/v1/rag/status/p/orders", "/v1/rag/metrics/p/orders"
WAIT = {"wait": "true"}


def opened(resources: Resources) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(resources)), base_url="http://evervec", timeout=60
    )


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with opened(resources) as found:
        yield found


@pytest.fixture
async def orders(resources: Resources, psql: Any) -> UUID:
    """Make a dataset of twenty orders, not indexed yet; whoever reads one that is paused waits."""
    await open_shop(psql, 20)
    return await keep(resources, described(filter="shop.up(id)"))


async def test_a_run_that_is_waited_for_is_answered_when_it_is_done(
    client: httpx.AsyncClient, orders: UUID, psql: Any
) -> None:
    answer = await client.post(INDEX, params=WAIT)
    run = answer.json()
    assert (answer.status_code, run["state"], run["mode"], run["dataset_id"]) == (200, "done", "compare", str(orders))
    assert (run["documents"]["new"], run["chunks"]["new"], run["texts_sent"], run["embeddings_generated"]) == (20,) * 4
    assert (run["trigger"], run["saved"]["texts"], run["full"]["texts"]) == ("http", 0, 20)
    assert None not in (await notes(psql, orders)).values()


async def test_without_waiting_the_run_is_queued_for_a_worker(
    client: httpx.AsyncClient, resources: Resources, orders: UUID
) -> None:
    answer = await client.post(INDEX, params={"full_rebuild": "true"})
    assert (answer.status_code, answer.json()["state"], answer.json()["mode"]) == (202, "queued", "full")
    assert (await client.get(STATUS)).json()["queued"]["run"] == answer.json()["run"]
    (run,) = await requests.run_due(resources, orders)
    assert (str(run.id), run.state) == (answer.json()["run"], "done")
    assert (await client.get(STATUS)).json()["last"]["run"] == answer.json()["run"]


async def test_a_folder_that_is_away_is_refused_and_it_says_what_can_be_done(
    client: httpx.AsyncClient, resources: Resources, tmp_path: Path
) -> None:
    page = put(tmp_path / "notes" / "page.md", "A page.")
    await ingest(resources, page.parent, dataset="notes")
    shutil.rmtree(page.parent)
    answer = await client.post("/v1/rag/index/p/notes")
    assert answer.status_code == 422
    assert "It is the only path of dataset p/notes." in answer.text
    assert "`evervec index p/notes --full --allow-empty` forgets" in answer.text


@pytest.mark.parametrize("path", ["{id}", "p/orders", "orders", "p%2Forders"])
async def test_a_dataset_goes_by_its_uuid_its_slug_and_both_names(
    client: httpx.AsyncClient, orders: UUID, path: str
) -> None:
    path = path.format(id=orders)
    for answer in (
        await client.post(f"/v1/rag/index/{path}", params=WAIT),
        await client.get(f"/v1/rag/status/{path}"),
        await client.get(f"/v1/rag/metrics/{path}"),
    ):
        assert (answer.status_code, answer.json()["dataset_id"]) == (200, str(orders))


async def test_named_ids_are_all_that_is_looked_at(
    client: httpx.AsyncClient, fake: FakeProvider, orders: UUID, psql: Any
) -> None:
    await client.post(INDEX, params=WAIT)
    await psql.execute("UPDATE shop.orders SET note = 'changed ' || id")
    await psql.execute("DELETE FROM shop.orders WHERE id = 5")
    fake.requests.clear()
    run = (await client.post(INDEX, params=WAIT, json={"changed_ids": {"orders": [2, "3", 5]}})).json()
    assert (run["mode"], run["changed"], run["chunks"]["updated"]) == ("delta", {"orders": 3}, 2)
    assert run["documents"]["deleted"] == 1
    assert set(fake.texts_sent()) == {"Order\n\nchanged 2", "Order\n\nchanged 3"}
    assert run["saved"]["texts"] == 19 - 2


async def test_of_two_that_ask_at_once_one_is_told_the_run_of_the_other(
    client: httpx.AsyncClient, orders: UUID
) -> None:
    first, second = await asyncio.gather(client.post(INDEX), client.post(INDEX))
    done, refused = sorted((first, second), key=lambda answer: answer.status_code)
    assert (done.status_code, refused.status_code) == (202, 409)
    assert refused.json()["run"] == done.json()["run"]
    assert refused.json()["error"]["code"] == "IndexRunningError"
    assert done.json()["run"] in refused.json()["error"]["message"]


async def test_a_run_at_work_is_shown_alive_and_nobody_else_may_start_one(
    client: httpx.AsyncClient, resources: Resources, psql: Any, orders: UUID
) -> None:
    await shop.add(psql, 21, 1500)
    async with shop.paused(psql, at=1200):
        waiting = asyncio.create_task(client.post(INDEX, params=WAIT))
        await shop.embedded(psql, 1000)
        status = (await client.get(STATUS)).json()
        refused = await client.post(INDEX, params=WAIT)
    done = (await asyncio.wait_for(waiting, 60)).json()
    assert (status["running"]["alive"], status["running"]["state"]) == (True, "running")
    assert status["running"]["progress"] == {"documents": 1000, "of": None, "at": "orders/1000"}
    assert (refused.status_code, refused.json()["run"]) == (409, done["run"])
    assert (done["state"], done["documents"]["new"]) == ("done", 1500)
    after = (await client.get(STATUS)).json()
    assert (after["running"], after["last"]["run"], after["embedded"]) == (None, done["run"], 1500)


async def test_a_run_whose_process_died_is_shown_so_and_goes_on_without_sending_twice(
    client: httpx.AsyncClient, resources: Resources, fake: FakeProvider, psql: Any, orders: UUID
) -> None:
    await shop.add(psql, 21, 2500)
    async with shop.paused(psql, at=2200):
        dies = asyncio.create_task(client.post(INDEX, params=WAIT))
        await shop.embedded(psql, 2000)
        dies.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dies
    status = (await client.get(STATUS)).json()
    assert (status["running"]["state"], status["running"]["alive"]) == ("running", False)
    assert (await client.post(INDEX)).json()["run"] == status["running"]["run"]
    (run,) = await requests.run_due(resources, orders)
    assert (str(run.id), run.state, run.attempts) == (status["running"]["run"], "done", 2)
    sent = {text: times for text, times in fake.texts_embedded().items() if text.startswith("Order")}
    assert (len(sent), set(sent.values())) == (2500, {1})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"changed_ids": {"stocks": [1]}}, "'stocks'"),
        ({"changed_ids": {"orders": ["seven"]}}, "'seven' is not an id"),
        ({"changed_ids": {"orders": [1.5]}}, "changed_ids.orders.0"),
        ({"changed_ids": {"orders": [True]}}, "changed_ids.orders.0"),
        ({"changed_ids": {"orders": [None]}}, "changed_ids.orders.0"),
        ({"changed_ids": {"orders": 7}}, "changed_ids.orders"),
        ({"changed_ids": {"orders": [10**30]}}, "is not an id"),
        ({"changed_ids": {"orders": [2**63]}}, "is not an id"),
        ({"changed_ids": {"orders\0": [1]}}, "no table"),
        ({"changed_ids": [1]}, "changed_ids"),
        ({"changed_id": {"orders": [1]}}, "changed_id"),
        ([], "body"),
        (b"null", "body"),
        (b'{"changed_ids": {"orders": [1', "body"),
        (b'{"changed_ids": {"orders": ["\\ud800"]}}', "escape"),
        (b"\xff\xfe", "body"),
        (b"[" * 100_000, "body"),
        (b'{"changed_ids": {"orders": [' + b"9" * 5000 + b"]}}", ""),
    ],
)
async def test_what_is_no_wish_is_refused_with_its_place_and_leaves_no_run(
    client: httpx.AsyncClient, psql: Any, orders: UUID, body: Any, said: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await client.post(INDEX, content=content)
    assert answer.status_code == 422
    assert said in answer.json()["error"]["message"]
    assert len(answer.text) < 2000
    assert await psql.fetchval("SELECT count(*) FROM index_runs") == 0


async def test_ids_and_a_full_rebuild_exclude_each_other(client: httpx.AsyncClient, orders: UUID) -> None:
    answer = await client.post(INDEX, params={"full_rebuild": "1"}, json={"changed_ids": {"orders": [1]}})
    assert (answer.status_code, "not both" in answer.json()["error"]["message"]) == (422, True)


async def test_ids_that_do_not_exist_are_counted_as_no_document(
    client: httpx.AsyncClient, psql: Any, orders: UUID
) -> None:
    await client.post(INDEX, params=WAIT)
    before = await versions(psql)
    run = (await client.post(INDEX, params=WAIT, json={"changed_ids": {"orders": [404, 1]}})).json()
    assert (run["state"], run["documents"]["unchanged"], run["documents"]["deleted"]) == ("done", 1, 0)
    assert (run["documents"]["skipped"], run["skipped"]) == (1, {"gone": 1})
    assert await versions(psql) == before


async def test_a_hundred_thousand_ids_are_taken(client: httpx.AsyncClient, orders: UUID) -> None:
    ids = list(range(1, 100_001))
    run = (await client.post(INDEX, params=WAIT, json={"changed_ids": {"orders": ids}})).json()
    assert (run["state"], run["changed"], run["documents"]["new"]) == ("done", {"orders": 100_000}, 20)


async def test_more_than_a_million_ids_are_refused_before_anything_is_looked_for(client: httpx.AsyncClient) -> None:
    body = b'{"changed_ids": {"a": [' + b"1," * 1_000_000 + b"1]}}"
    answer = await client.post("/v1/rag/index/nowhere", content=body)
    assert (answer.status_code, "too many" in answer.json()["error"]["message"]) == (422, True)


async def test_a_body_without_end_is_read_only_so_far(client: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield b" " * (1 << 20)

    answer = await client.post("/v1/rag/index/nowhere", content=endless())
    assert (answer.status_code, "64 MB" in answer.json()["error"]["message"]) == (422, True)
    assert read == 65 << 20


async def test_who_is_no_dataset_or_has_no_source_is_told(client: httpx.AsyncClient, dataset: DatasetRef) -> None:
    for path in ("nope", f"{uuid4()}", "river/nope", "river/log/more", ""):
        for answer in (
            await client.post(f"/v1/rag/index/{path}"),
            await client.get(f"/v1/rag/status/{path}"),
            await client.get(f"/v1/rag/metrics/{path}"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "UnknownDatasetError")
    answer = await client.post("/v1/rag/index/river/log")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "NoSourceError")
    status = (await client.get("/v1/rag/status/river/log")).json()
    assert (status["source"], status["documents"], status["last"], status["next_full_rebuild"]) == (None, 0, None, None)
    assert (await client.get("/v1/rag/metrics/river/log")).json()["totals"]["runs"] == 0
    refused = await client.get("/v1/rag/metrics/river/log", params={"runs": "0"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "Refused")
    assert "runs" in refused.json()["error"]["message"]


async def test_only_the_key_opens_and_no_body_is_read_without_it(resources: Resources, orders: UUID) -> None:
    keyed = Settings(home=resources.settings.home, api_key=SecretStr("s3cret"))

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with opened(replace(resources, settings=keyed)) as client:
        for headers in ({}, {"X-API-KEY": "wrong"}):
            assert (await client.post(INDEX, headers=headers, content=never())).status_code == 401
            assert (await client.get(STATUS, headers=headers)).status_code == 401
            assert (await client.get(METRICS, headers=headers)).status_code == 401
        assert (await client.post(INDEX, headers={"X-API-KEY": "s3cret"})).status_code == 202


async def test_a_dataset_deleted_in_the_middle_of_its_run_ends_it_without_an_error(
    client: httpx.AsyncClient, resources: Resources, psql: Any, orders: UUID
) -> None:
    await shop.add(psql, 21, 2500)
    async with shop.paused(psql, at=1500):
        waiting = asyncio.create_task(client.post(INDEX, params=WAIT))
        await shop.embedded(psql, 1000)
        async with resources.database.transaction() as tx:
            await datasets.remove(tx, orders)
    answer = await asyncio.wait_for(waiting, 60)
    assert (answer.status_code, answer.json()["state"], answer.json()["error"]) == (200, "cancelled", None)
    assert (await client.get(STATUS)).status_code == 404


@pytest.fixture
async def elsewhere(servers: Servers) -> AsyncIterator[str]:
    """Give the address of a database that is not ours."""
    name = f"elsewhere_{next(NUMBERS)}"
    await _sql(servers.database_url, f"CREATE DATABASE {name}")
    await _sql(servers.database(name), shop.SHOP, "INSERT INTO shop.orders (id, note) VALUES (1, 'far away')")
    yield servers.database(name)
    await _sql(servers.database_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_a_source_that_goes_away_is_unavailable_and_nothing_is_lost(
    resources: Resources, servers: Servers, psql: Any, elsewhere: str
) -> None:
    settings = resources.settings.model_copy(update={"secret_key": SecretStr(secrets.new_key())})
    sealed = replace(resources, settings=settings)
    orders = await keep(sealed, described(url=elsewhere, filter="shop.up(id)"))
    async with opened(sealed) as client:
        assert (await client.post(INDEX, params=WAIT)).json()["documents"]["new"] == 1
        await _sql(elsewhere, "INSERT INTO shop.outage VALUES (1)")
        answer = await client.post(INDEX, params=WAIT | {"full_rebuild": "true"})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert "does not answer" in answer.json()["error"]
        where = (await client.get(STATUS)).json()["source"]["where"]
        assert (urlsplit(elsewhere).path in where, "@" in where) == (True, False)
        await psql.execute("DELETE FROM index_runs WHERE state = 'queued'")
        await _sql(servers.database_url, f"DROP DATABASE {urlsplit(elsewhere).path[1:]} WITH (FORCE)")
        gone = await client.post(INDEX, params=WAIT | {"full_rebuild": "true"})
        assert (gone.status_code, gone.json()["error"]["code"]) == (503, "SourceDownError")
        assert await notes(psql, orders) == {"orders/1": "Order\n\nfar away"}
    async with opened(resources) as client:  # without the secret key
        assert "EVERVEC_SECRET_KEY" in (await client.get(STATUS)).json()["source"]["where"]


async def test_metrics_sum_what_the_runs_did_and_what_each_saved(
    client: httpx.AsyncClient, orders: UUID, psql: Any
) -> None:
    await psql.execute("UPDATE llm_providers SET usd_per_million_tokens = 20")
    await client.post(INDEX, params=WAIT)
    await psql.execute("UPDATE shop.orders SET note = 'changed' WHERE id = 1")
    await client.post(INDEX, params=WAIT, json={"changed_ids": {"orders": [1]}})
    await client.post(INDEX, params=WAIT)
    found = (await client.get(METRICS, params={"runs": "2"})).json()
    last, delta = found["runs"]
    full, totals = found["full_run"], found["totals"]
    assert (totals["runs"], totals["texts_sent"], totals["requests"]) == (3, 21, 2)
    assert (
        totals["chunks"] == {"new": 20, "updated": 1, "skipped": 19, "deleted": 0} or totals["chunks"]["skipped"] == 20
    )
    assert (delta["saved"]["texts"], last["saved"]["texts"]) == (19, 20)
    assert totals["saved"]["texts"] == 0 + 19 + 20
    assert totals["tokens"] == full["tokens"] + delta["tokens"] + last["tokens"]
    assert totals["cost_usd"] == pytest.approx(totals["tokens"] * 20 / 1_000_000)
    assert delta["saved"]["cost_usd"] == pytest.approx((delta["full"]["tokens"] - delta["tokens"]) * 20 / 1_000_000)
    for run in (delta, last):
        saved = max(0, full["seconds"]["total"] - run["seconds"]["total"])
        assert run["saved"]["seconds"] == pytest.approx(saved, abs=0.002)
    assert full["saved"] == {"texts": 0, "tokens": 0, "cost_usd": 0.0, "seconds": 0.0}


async def test_the_api_describes_itself_with_examples_that_are_true(client: httpx.AsyncClient) -> None:
    api = (await client.get("/openapi.json")).json()
    answers = [examples.DONE, examples.STATUS, examples.METRICS, *(answer for _, answer in examples.REFUSALS.values())]
    models = {type(answer).__name__: type(answer) for answer in answers}
    seen = 0
    for path in ("index", "status", "metrics"):
        (operation,) = api["paths"][f"/v1/rag/{path}/{{dataset}}"].values()
        assert operation["tags"] == ["indexing"]
        assert operation["summary"]
        for response in operation["responses"].values():
            content = response["content"]["application/json"]
            model = models[content["schema"]["$ref"].rpartition("/")[2]]
            TypeAdapter(model).validate_json(json.dumps(content["example"]), extra="forbid")
            seen += 1
    assert seen == 7 + 5 + 5
    body = api["paths"]["/v1/rag/index/{dataset}"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["changed_ids"]
    for example in body["examples"].values():
        IndexRequest.model_validate_json(json.dumps(example["value"]))
