"""The fake speaks Gemini: the real SDK and a plain HTTP client are served, and every wish of a test is granted."""

from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any

import aiohttp
import httpx
import numpy as np
import orjson
import pytest
from google import genai
from google.genai import errors, types

from tests.fakes import FakeProvider, Fault, State, expected_description, expected_vector
from tests.fakes.results import CHUNK
from tests.fakes.vectors import tokens

MODEL = "gemini-embedding-001"
CREATE = f"/v1beta/models/{MODEL}:asyncBatchEmbedContent"
TEXTS = [f"text {number}" for number in range(7)]


@pytest.fixture
async def gemini() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=32, api_key="right") as fake:
        yield fake


@pytest.fixture
async def http(gemini: FakeProvider) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gemini.url, headers={"x-goog-api-key": "right"}) as session:
        yield session


@pytest.fixture
async def sdk(gemini: FakeProvider) -> AsyncIterator[Any]:
    # its own aiohttp session warns of itself
    async with httpx.AsyncClient() as client:
        options = types.HttpOptions(base_url=gemini.url, api_version="v1beta", httpx_async_client=client)
        yield genai.Client(api_key="right", http_options=options).aio


def lines(texts: list[str], dims: int = 8) -> bytes:
    return b"".join(
        orjson.dumps(
            {"key": f"k{n}", "request": {"content": {"parts": [{"text": text}]}, "output_dimensionality": dims}}
        )
        + b"\n"
        for n, text in enumerate(texts)
    )


async def upload(http: aiohttp.ClientSession, data: bytes, name: str | None = None) -> str:
    """Upload in one piece with the resumable protocol; return the name of the file."""
    begin = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    async with http.post(
        "/upload/v1beta/files", json={"file": {"name": name} if name else {}}, headers=begin
    ) as answer:
        where = answer.headers["X-Goog-Upload-URL"]
    end = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
    async with http.post(where, data=BytesIO(data), headers=end) as answer:
        assert answer.headers["X-Goog-Upload-Status"] == "final"
        return str((await answer.json())["file"]["name"])


async def ask(http: aiohttp.ClientSession, method: str, path: str, document: Any = None) -> tuple[int, Any]:
    async with http.request(method, path, json=document) as answer:
        return answer.status, await answer.json()


async def create(http: aiohttp.ClientSession, file: str, intent: str = "emb:1") -> tuple[int, Any]:
    batch = {"displayName": intent, "inputConfig": {"fileName": file}}
    return await ask(http, "POST", CREATE, {"batch": batch})


async def run(http: aiohttp.ClientSession, texts: list[str], dims: int = 8) -> bytes:
    """Upload, create, poll to the end, download: the lines of the results as they came."""
    _, job = await create(http, await upload(http, lines(texts, dims)))
    while not job.get("done"):
        _, job = await ask(http, "GET", f"/v1beta/{job['name']}")
    async with http.get(f"/download/v1beta/{job['response']['responsesFile']}:download?alt=media") as answer:
        assert answer.status == 200
        return await answer.read()


def read(body: bytes) -> dict[str, Any]:
    return {line["key"]: line for line in map(orjson.loads, body.splitlines())}


async def test_the_sdk_embeds_online_and_the_texts_are_counted(gemini: FakeProvider, sdk: Any) -> None:
    config = types.EmbedContentConfig(output_dimensionality=16, task_type="RETRIEVAL_DOCUMENT")
    answer = await sdk.models.embed_content(model=MODEL, contents=["a", "b"], config=config)
    for text, embedding in zip(["a", "b"], answer.embeddings, strict=True):
        assert np.array_equal(np.float32(embedding.values), expected_vector(MODEL, text, 16))
    assert gemini.texts_embedded() == {"a": 1, "b": 1}
    assert gemini.requests[0].model == MODEL
    model = await sdk.models.get(model=MODEL)
    assert model.input_token_limit == 2048
    assert "asyncBatchEmbedContent" in model.supported_actions


async def test_the_sdk_takes_a_batch_from_upload_to_cleaning_up(gemini: FakeProvider, sdk: Any) -> None:
    config = types.UploadFileConfig(name="emb-abc", display_name="texts", mime_type="application/jsonl")
    file = await sdk.files.upload(file=BytesIO(lines(TEXTS)), config=config)
    assert (file.name, file.state, file.size_bytes) == ("files/emb-abc", types.FileState.ACTIVE, len(lines(TEXTS)))
    assert file.expiration_time - file.create_time == timedelta(hours=48)
    with pytest.warns(match="experimental"):
        job = await sdk.batches.create_embeddings(
            model=MODEL, src={"file_name": file.name}, config={"display_name": "emb:7"}
        )
    assert job.state == "JOB_STATE_PENDING"
    assert (await sdk.batches.get(name=job.name)).state == "JOB_STATE_RUNNING"
    job = await sdk.batches.get(name=job.name)
    assert (job.state, job.display_name) == ("JOB_STATE_SUCCEEDED", "emb:7")
    found = read(await sdk.files.download(file=job.dest.file_name))
    for number, text in enumerate(TEXTS):
        response = found[f"k{number}"]["response"]
        assert response["tokenCount"] == str(tokens(text))
        assert np.array_equal(np.float32(response["embedding"]["values"]), expected_vector(MODEL, text, 8))
    assert [one.name async for one in await sdk.batches.list(config={"page_size": 50})] == [job.name]
    assert len([one async for one in await sdk.files.list(config={"page_size": 1})]) == 2
    for name in (file.name, job.dest.file_name):
        await sdk.files.delete(name=name)
    await sdk.batches.delete(name=job.name)
    assert not gemini.batches.files
    assert gemini.batches.deleted_files[0] == "emb-abc"
    assert gemini.batches.texts_paid() == dict.fromkeys(TEXTS, 1)
    assert not [one async for one in await sdk.batches.list()]
    assert gemini.batches.jobs[0].lines[0] == ("k0", "text 0")
    assert not gemini.texts_sent()


async def test_the_sdk_gets_inline_results_in_the_order_of_its_requests(gemini: FakeProvider, sdk: Any) -> None:
    gemini.batches.polls = 0
    contents = types.EmbedContentBatch(contents=TEXTS[:3], config=types.EmbedContentConfig(output_dimensionality=8))
    with pytest.warns(match="experimental"):
        job = await sdk.batches.create_embeddings(model=MODEL, src={"inlined_requests": contents})
    job = await sdk.batches.get(name=job.name)
    for text, one in zip(TEXTS, job.dest.inlined_embed_content_responses, strict=False):
        assert np.array_equal(np.float32(one.response.embedding.values), expected_vector(MODEL, text, 8))
    assert [text for _, text in gemini.batches.jobs[0].lines] == TEXTS[:3]


async def test_media_are_described_by_what_is_in_them(gemini: FakeProvider, http: aiohttp.ClientSession) -> None:
    gemini.batches.polls = 0
    stored = await upload(http, b"a sound")
    parts = [
        [{"text": "What is this?"}, {"inline_data": {"mime_type": "image/png", "data": b64encode(b"png").decode()}}],
        [{"fileData": {"fileUri": f"https://generativelanguage.googleapis.com/v1beta/{stored}"}}],
        [{"text": "nothing to see"}],
    ]
    document = [{"key": f"m{n}", "request": {"contents": [{"parts": part}]}} for n, part in enumerate(parts)]
    file = await upload(http, b"\n".join(map(orjson.dumps, document)))
    path = "/v1beta/models/gemini-flash:batchGenerateContent"
    _, job = await ask(http, "POST", path, {"batch": {"input_config": {"file_name": file}}})
    async with http.get(f"/v1beta/{job['response']['responsesFile']}:download?alt=media") as answer:
        found = read(await answer.read())
    for key, media in (("m0", b"png"), ("m1", b"a sound")):
        text = found[key]["response"]["candidates"][0]["content"]["parts"][0]["text"]
        assert text == expected_description(media) == f"A picture of {sha256(media).hexdigest()[:12]}"
    assert "media" in found["m2"]["error"]["message"]
    stats = job["metadata"]["batchStats"]
    assert stats == {"requestCount": "3", "successfulRequestCount": "2", "failedRequestCount": "1"}


async def test_an_upload_comes_in_pieces_and_goes_on_where_it_broke(
    gemini: FakeProvider, http: aiohttp.ClientSession
) -> None:
    begin = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    begin["X-Goog-Upload-Header-Content-Length"] = "9"
    async with http.post("/upload/v1beta/files", json={"file": {"name": "files/mine"}}, headers=begin) as answer:
        where = answer.headers["X-Goog-Upload-URL"]

    async def piece(command: str, offset: int, data: bytes) -> tuple[int, str | None, str | None]:
        headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset)}
        async with http.post(where, data=data, headers=headers) as answer:
            kept = answer.headers.get("X-Goog-Upload-Size-Received")
            return answer.status, answer.headers.get("X-Goog-Upload-Status"), kept

    assert await piece("upload", 0, b"abcd") == (200, "active", "4")
    gemini.fail_next(1, Fault.RESET, endpoint="/upload/v1beta/files/bytes")
    with pytest.raises(aiohttp.ClientError):
        await piece("upload", 4, b"ef")
    assert await piece("query", 0, b"") == (200, "active", "4")
    assert (await piece("upload", 0, b"abcd"))[0] == 400
    assert (await piece("upload, finalize", 4, b"ef"))[0] == 400, "nine bytes were announced"
    assert await piece("upload, finalize", 6, b"ghi") == (200, "final", None)
    file = gemini.batches.files["mine"]
    assert b"".join(file.source()) == b"abcdefghi"
    assert file.sha256 == sha256(b"abcdefghi").hexdigest()
    assert (await ask(http, "POST", "/upload/v1beta/files", {"file": {"name": "files/Not Ok"}}))[0] == 400
    async with http.post("/upload/v1beta/files", json={"file": {"name": "files/mine"}}, headers=begin) as answer:
        assert (answer.status, (await answer.json())["error"]["status"]) == (409, "ALREADY_EXISTS")


async def test_an_upload_in_one_request_is_stored(gemini: FakeProvider, http: aiohttp.ClientSession) -> None:
    with aiohttp.MultipartWriter("related") as form:
        form.append_json({"file": {"name": "files/whole"}})
        form.append(b"all of it")
        async with http.post("/upload/v1beta/files?uploadType=multipart", data=form) as answer:
            assert (await answer.json())["file"]["sizeBytes"] == "9"
    assert b"".join(gemini.batches.files["whole"].source()) == b"all of it"


async def test_who_has_no_key_is_refused_and_a_key_in_the_query_will_do(gemini: FakeProvider) -> None:
    async with aiohttp.ClientSession(gemini.url) as session:
        async with session.get(f"/v1beta/models/{MODEL}", headers={"x-goog-api-key": "wrong"}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["details"][0]["reason"] == "API_KEY_INVALID"
        async with session.get(f"/v1beta/models/{MODEL}?key=right") as answer:
            assert answer.status == 200


async def test_refusals_look_like_googles(gemini: FakeProvider, http: aiohttp.ClientSession) -> None:
    status, answer = await create(http, "files/nobody")
    assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")
    uploaded = await upload(http, lines(TEXTS))
    status, answer = await ask(http, "GET", f"/v1beta/{uploaded}:download?alt=media")
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT"), "only what is generated is given back"
    gemini.unbatched.add(MODEL)
    assert (await create(http, uploaded))[0] == 404
    assert (
        "asyncBatchEmbedContent"
        not in (await ask(http, "GET", f"/v1beta/models/{MODEL}"))[1]["supportedGenerationMethods"]
    )
    request = {"model": f"models/{MODEL}", "content": {"parts": [{"text": "x"}]}}
    status, answer = await ask(
        http, "POST", f"/v1beta/models/{MODEL}:batchEmbedContents", {"requests": [request] * 101}
    )
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    gemini.fail_next(1, Fault.RATE_LIMITED_429)
    status, answer = await ask(http, "POST", f"/v1beta/models/{MODEL}:embedContent", request)
    assert status == 429
    assert answer["error"]["details"][1]["retryDelay"] == "7s"


@pytest.mark.parametrize(("fault", "status"), [(Fault.LOST_ANSWER, 0), (Fault.DONE_BUT_500, 500)])
async def test_a_job_is_created_although_nobody_hears_of_it(
    gemini: FakeProvider, sdk: Any, http: aiohttp.ClientSession, fault: Fault, status: int
) -> None:
    file = await upload(http, lines(TEXTS))
    gemini.fail_next(1, fault, endpoint=":asyncBatchEmbedContent")
    with pytest.warns(match="experimental"), pytest.raises((errors.APIError, httpx.TransportError)):
        await sdk.batches.create_embeddings(model=MODEL, src={"file_name": file}, config={"display_name": "emb:1"})
    assert [job.display_name for job in gemini.batches.jobs] == ["emb:1"]
    assert [(r.status, r.fault) for r in gemini.requests if r.endpoint == CREATE] == [(status, fault)]
    _, answer = await ask(http, "GET", "/v1beta/batches")
    assert [one["metadata"]["displayName"] for one in answer["operations"]] == ["emb:1"]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("fail", "FAILED"), ("expire", "EXPIRED"), ("cancel", "CANCELLED"), ("unknown_state", "PARTIALLY_SUCCEEDED")],
)
async def test_a_job_ends_as_the_test_wishes(
    gemini: FakeProvider, http: aiohttp.ClientSession, outcome: str, state: str
) -> None:
    gemini.batches.wish(polls=0, spelling="JOB_STATE", next_outcomes=[outcome])
    file = await upload(http, lines(TEXTS))
    _, job = await create(http, file)
    assert job["metadata"]["state"] == f"JOB_STATE_{state}"
    assert "response" not in job
    assert ("error" in job) is job.get("done", False)
    assert (await create(http, file))[1]["metadata"]["state"] == "JOB_STATE_SUCCEEDED"


async def test_a_job_or_its_results_vanish(gemini: FakeProvider, http: aiohttp.ClientSession) -> None:
    gemini.batches.wish(polls=0, results_in="metadata", next_outcomes=["vanish", "results_vanish"])
    file = await upload(http, lines(TEXTS))
    _, job = await create(http, file)
    assert (await ask(http, "GET", f"/v1beta/{job['name']}"))[0] == 404
    _, job = await create(http, file)
    assert "response" not in job
    name = job["metadata"]["output"]["responsesFile"]
    assert (await ask(http, "GET", f"/v1beta/{name}:download?alt=media"))[0] == 404
    assert gemini.batches.texts_paid() == dict.fromkeys(TEXTS, 2)


async def test_lines_of_the_results_go_wrong_as_the_test_wishes(
    gemini: FakeProvider, http: aiohttp.ClientSession
) -> None:
    batches = gemini.batches
    batches.fail_lines(lambda text: text == "text 0", "no luck")
    batches.drop_lines(lambda text: text == "text 1")
    batches.duplicate_lines(lambda text: text == "text 2")
    batches.spoil_lines(lambda text: text == "text 3", "nan")
    batches.spoil_lines(lambda text: text == "text 4", "short")
    batches.spoil_lines(lambda text: text == "text 5", "null")
    batches.unknown_lines(2)
    batches.wish(reverse=True, garbage_line=True, cut_last_line=True)
    body = (await run(http, TEXTS)).splitlines()
    keys = [line.split(b'"')[3].decode() for line in body if line.startswith(b'{"key"')]
    assert keys == ["k6", "k5", "k4", "k3", "k2", "k2", "k0", "nobody-sent-0", "nobody-sent-1"]
    assert body[1].startswith(b"<html>")
    assert b"[NaN," in body[4]
    assert orjson.loads(body[7])["error"] == {"code": 3, "message": "no luck"}
    assert len(orjson.loads(body[3])["response"]["embedding"]["values"]) == 7
    assert orjson.loads(body[2])["response"]["embedding"]["values"][0] is None
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body[-1])
    gemini.heal()
    assert [*read(await run(http, TEXTS))] == [f"k{n}" for n in range(7)]


async def test_a_job_that_is_cancelled_before_it_runs_costs_nothing(
    gemini: FakeProvider, http: aiohttp.ClientSession
) -> None:
    gemini.batches.polls = 100
    file = await upload(http, lines(["once"]))
    for polls in (0, 1):
        _, job = await create(http, file)
        for _ in range(polls):
            await ask(http, "GET", f"/v1beta/{job['name']}")
        assert (await ask(http, "POST", f"/v1beta/{job['name']}:cancel"))[0] == 200
        assert (await ask(http, "GET", f"/v1beta/{job['name']}"))[1]["metadata"]["state"] == "BATCH_STATE_CANCELLED"
    assert gemini.batches.texts_paid() == {"once": 1}


async def test_more_than_may_wait_is_refused_until_something_ends(
    gemini: FakeProvider, http: aiohttp.ClientSession
) -> None:
    file = await upload(http, lines(["x" * 400]))
    gemini.batches.most_tokens = 150
    _, first = await create(http, file)
    status, answer = await create(http, file)
    assert (status, answer["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    gemini.batches.wish(most_tokens=None, most_jobs=1)
    assert (await create(http, file))[0] == 429
    gemini.batches.polls = 0
    await ask(http, "GET", f"/v1beta/{first['name']}")
    assert gemini.batches.jobs[0].state is State.SUCCEEDED
    assert (await create(http, file))[0] == 200


async def test_jobs_are_listed_newest_first_page_by_page(gemini: FakeProvider, http: aiohttp.ClientSession) -> None:
    file = await upload(http, lines(["x"]))
    for number in range(5):
        await create(http, file, f"emb:{number}")
    seen, token = [], ""
    while True:
        _, answer = await ask(http, "GET", f"/v1beta/batches?pageSize=2&pageToken={token}")
        seen += [one["metadata"]["displayName"] for one in answer["operations"]]
        if len(seen) == 2:  # what is created meanwhile moves nothing
            await create(http, file, "emb:new")
        if not (token := answer.get("nextPageToken", "")):
            break
    assert seen == [f"emb:{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("fault", [Fault.RESET_MID_BODY, Fault.TRUNCATED_JSON])
async def test_a_download_breaks_in_the_middle(gemini: FakeProvider, http: aiohttp.ClientSession, fault: Fault) -> None:
    gemini.batches.polls = 0
    whole = await run(http, TEXTS * 300)
    gemini.fail_next(1, fault, endpoint=":download")
    path = f"/v1beta/files/{gemini.batches.jobs[0].output_file}:download?alt=media"
    got = b""
    async with http.get(path) as answer:
        try:
            async for block in answer.content.iter_any():
                got += block
        except aiohttp.ClientPayloadError:
            assert fault is Fault.RESET_MID_BODY
        else:
            assert fault is Fault.TRUNCATED_JSON
            assert len(got) == len(whole) // 2
    assert whole.startswith(got)
    assert len(got) < len(whole)


async def test_ten_thousand_lines_are_never_in_memory_at_once(
    gemini: FakeProvider, http: aiohttp.ClientSession
) -> None:
    gemini.batches.polls = 0
    texts = [f"text {number}" for number in range(10_000)]
    _, job = await create(http, await upload(http, lines(texts, 256)))
    assert len(next(gemini.batches.files[str(gemini.batches.jobs[0].output_file)].source())) < 2 * CHUNK
    count = total = 0
    async with http.get(f"/v1beta/{job['response']['responsesFile']}:download?alt=media") as answer:
        async for block in answer.content.iter_any():
            count, total = count + block.count(b"\n"), total + len(block)
    assert count == 10_000
    assert total > 10_000 * 256 * 8
