"""What comes back from OpenAI's two result files: streamed, matched by key, and gone or broken only in ways that are told."""

import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from evervec.domain.batch import Line, MediaLine, RemoteJob, RemoteState, Results
from evervec.embedders.openai.batch import OpenAIBatchClient
from evervec.errors import AuthError, BadResponseError, ConfigError, ProviderError, ResultsDeletedError, TransientError
from tests.fakes import FakeProvider, Fault, expected_vectors
from tests.fakes.vectors import expected_description

MODEL, KEY, DIMS = "text-embedding-3-small", "sk-canary-77aa", 24
CONTENT = "/v1/files/*/content"


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=DIMS, api_key=KEY) as running:
        running.batches.polls = 0
        yield running


@pytest.fixture
async def client(fake: FakeProvider) -> AsyncIterator[OpenAIBatchClient]:
    opened = OpenAIBatchClient(MODEL, api_key=KEY, base_url=fake.url, chat_model="looker")
    yield opened
    await opened.aclose()


async def done(client: OpenAIBatchClient, folder: Path, count: int = 10) -> RemoteJob:
    path, intent = folder / "lines.jsonl", uuid4()
    with path.open("wb") as out:
        out.writelines(client.line(Line(f"key-{number}", f"text {number}")) for number in range(count))
    return await client.create_embedding_job(intent, await client.upload(intent, path))


async def read(client: OpenAIBatchClient, job: RemoteJob, *, lines: int = 4, dimensions: int = DIMS) -> list[Results]:
    return [part async for part in client.download_results(job, lines=lines, dimensions=dimensions)]


def errors(parts: list[Results]) -> dict[str, str]:
    return {key: code for part in parts for key, code, _ in part.errors}


async def test_vectors_come_by_key_some_lines_at_a_time(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    fake.batches.reverse = True
    parts = await read(client, await done(client, tmp_path))
    assert [len(part.keys) for part in parts] == [4, 4, 2]
    for part in parts:
        texts = [f"text {key.removeprefix('key-')}" for key in part.keys]
        assert part.vectors is not None
        assert part.vectors.dtype == np.float32
        assert np.array_equal(part.vectors, expected_vectors(MODEL, texts, DIMS))


async def test_lines_that_failed_come_out_of_the_other_file(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    fake.batches.fail_lines(lambda text: text in ("text 2", "text 7"), "it is too long")
    job = await done(client, tmp_path)
    parts = await read(client, job)
    assert (job.succeeded, job.failed, len(job.result_files)) == (8, 2, 2)
    assert errors(parts) == {"key-2": "bad_input", "key-7": "bad_input"}
    assert sum(len(part.keys) for part in parts) == 8
    assert "it is too long" in str(parts[-1].errors)


async def test_an_expired_job_gives_what_was_done_and_says_what_was_not(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    fake.batches.outcome = "expire"
    job = await done(client, tmp_path)
    parts = await read(client, job)
    assert job.state is RemoteState.EXPIRED
    assert [key for part in parts for key in part.keys] == [f"key-{number}" for number in range(5)]
    assert errors(parts) == {f"key-{number}": "expired" for number in range(5, 10)}


async def test_a_vector_of_another_width_is_an_error_of_its_key(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    parts = await read(client, await done(client, tmp_path, 3), dimensions=DIMS + 1)
    assert errors(parts) == {f"key-{number}": "bad_response" for number in range(3)}
    assert [list(part.keys) for part in parts] == [[]]


async def test_pictures_are_described(client: OpenAIBatchClient, tmp_path: Path) -> None:
    path, intent, media = tmp_path / "media.jsonl", uuid4(), {"a": b"\x89PNG one", "b": b"RIFF two"}
    kinds = {"a": "image/png", "b": "audio/wav"}
    path.write_bytes(b"".join(client.media_line(MediaLine(key, kinds[key], media[key])) for key in media))
    job = await client.describe_media(intent, await client.upload(intent, path))
    [part] = [found async for found in client.download_results(job, lines=10, dimensions=None)]
    assert part.vectors is None
    assert dict(zip(part.keys, part.texts or (), strict=True)) == {
        key: expected_description(media[key]) for key in media
    }


async def test_a_connection_that_breaks_gives_what_came_before(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    job = await done(client, tmp_path, 200)
    fake.fail_next(1, Fault.RESET_MID_BODY, endpoint=CONTENT)
    keys: list[str] = []
    with pytest.raises(TransientError):
        async for part in client.download_results(job, lines=30, dimensions=DIMS):
            keys += part.keys
            assert part.garbled == 0
    assert 0 < len(keys) < 200
    assert len(keys) % 30
    assert fake.calls(CONTENT) == 1


REFUSED = {
    Fault.BUSY_503: TransientError,
    Fault.RESET: TransientError,
    Fault.UNAUTHORIZED_401: AuthError,
    Fault.REDIRECT_302: ConfigError,
    Fault.HTML_200: BadResponseError,
    Fault.HUGE_BODY: BadResponseError,
}


@pytest.mark.parametrize(("fault", "kind"), REFUSED.items(), ids=REFUSED)
async def test_what_is_no_file_of_results_is_told_apart(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path, fault: Fault, kind: type[ProviderError]
) -> None:
    job = await done(client, tmp_path)
    fake.fail_next(1, fault, endpoint=CONTENT)
    with pytest.raises(kind) as problem:
        await read(client, job)
    assert KEY not in str(problem.value)
    assert fake.calls(CONTENT) == 1


async def test_a_file_that_is_gone_is_said_to_be_gone(
    fake: FakeProvider, client: OpenAIBatchClient, tmp_path: Path
) -> None:
    fake.batches.outcome = "results_vanish"
    job = await done(client, tmp_path)
    with pytest.raises(ResultsDeletedError):
        await read(client, job)


async def test_a_reader_that_stops_early_leaves_nothing_open(client: OpenAIBatchClient, tmp_path: Path) -> None:
    job = await done(client, tmp_path, 2_000)
    results = client.download_results(job, lines=10, dimensions=DIMS)
    assert len((await anext(results)).keys) == 10
    await results.aclose()
    assert (await client.get_job_status(job.external_id)).state is RemoteState.SUCCEEDED


async def test_twenty_thousand_rows_pass_through_a_small_memory(client: OpenAIBatchClient, tmp_path: Path) -> None:
    job, seen = await done(client, tmp_path, 20_000), 0
    tracemalloc.start()
    async for part in client.download_results(job, lines=500, dimensions=DIMS):
        seen += len(part.keys)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 20_000
    assert peak < 8 << 20  # the file itself has more than that
