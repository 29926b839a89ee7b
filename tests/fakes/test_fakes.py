"""The fake provider itself: its vectors, its faults, its log, in this process, in a thread and in another process."""

import subprocess
import sys
import urllib.request
from typing import Any

import numpy as np
import orjson
import pytest

from tests.fakes import FakeProvider, FakeProviderThread, Fault, expected_vector
from tests.fakes.faults import same_endpoint


def call(url: str, document: Any = None) -> tuple[int, Any]:
    data = None if document is None else orjson.dumps(document)
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
        return answer.status, orjson.loads(answer.read())


def test_a_vector_is_a_pure_function_of_model_text_and_width() -> None:
    assert np.linalg.norm(expected_vector("m", "text", 64)) == np.float32(1) or np.isclose(
        np.linalg.norm(expected_vector("m", "text", 64)), 1, atol=1e-6
    )
    assert not np.array_equal(expected_vector("m", "text", 64), expected_vector("n", "text", 64))
    assert not np.array_equal(expected_vector("m", "text", 64), expected_vector("m", "texts", 64))
    script = "from tests.fakes import expected_vector; print(expected_vector('m', 'text', 64).tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == expected_vector("m", "text", 64).tobytes().hex()


def test_in_a_thread_it_answers_and_counts_what_it_was_sent() -> None:
    with FakeProviderThread(dims=16) as fake:
        _, answer = call(f"{fake.url}/api/embed", {"model": "m", "input": ["a", "b", "a"]})
        assert np.array_equal(np.float32(answer["embeddings"][1]), expected_vector("m", "b", 16))
        assert fake.texts_sent() == {"a": 2, "b": 1}
        assert call(f"{fake.url}/api/embed", {"model": "m", "input": ""})[1]["embeddings"] == []
        assert call(f"{fake.url}/api/version")[1]["version"]
        assert call(f"{fake.url}/api/tags")[1]["models"]


def test_in_another_process_it_is_told_to_fail_and_shows_its_log() -> None:
    process = subprocess.Popen([sys.executable, "-m", "tests.fakes", "--dims", "8"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        call(f"{url}/_fault", {"fault": "zero_vector", "times": 1, "contains": "bad"})
        for text, zero in (("good", False), ("bad", True), ("bad", False)):
            _, answer = call(f"{url}/api/embed", {"model": "m", "input": [text]})
            assert (not any(answer["embeddings"][0])) is zero
        log = call(f"{url}/_log")[1]["requests"]
        assert [(entry["texts"], entry["fault"]) for entry in log] == [
            (["good"], None),
            (["bad"], "zero_vector"),
            (["bad"], None),
        ]
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def test_in_another_process_its_batches_are_wished_and_shown() -> None:
    process = subprocess.Popen([sys.executable, "-m", "tests.fakes", "--dims", "8"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        call(f"{url}/_batches", {"polls": 0, "next_outcomes": ["fail"]})
        request = {"request": {"content": {"parts": [{"text": "once"}]}}, "metadata": {"key": "k"}}
        batch = {"displayName": "emb:1", "inputConfig": {"requests": {"requests": [request]}}}
        _, job = call(f"{url}/v1beta/models/m:asyncBatchEmbedContent", {"batch": batch})
        assert job["metadata"]["state"] == "BATCH_STATE_FAILED"
        [shown] = call(f"{url}/_batches?lines=1")[1]["jobs"]
        assert (shown["display_name"], shown["state"], shown["texts"]) == ("emb:1", "failed", [["k", "once"]])
        log = call(f"{url}/_log")[1]
        assert [entry["texts"] for entry in log["requests"]] == [["once"]]
        assert [entry["lines"] for entry in log["jobs"]] == [1]
    finally:
        process.terminate()
        assert process.wait(60) == 0, "it ends in order, so that its files leave the disk"
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize(
    ("pattern", "method", "path", "same"),
    [
        ("/v1/files", "GET", "/v1/files", True),
        ("/v1/files", "GET", "/v1/files/1/content", False),
        ("/v1/files/*/content", "GET", "/v1/files/1/content", True),
        (":download", "GET", "/download/v1beta/files/1:download", True),
        ("POST /v1/batches", "GET", "/v1/batches", False),
        ("POST /v1/batches", "POST", "/v1/batches", True),
        ("POST :cancel", "POST", "/v1beta/batches/1:cancel", True),
    ],
)
def test_an_endpoint_is_a_path_a_glob_or_a_part_and_may_name_its_method(
    pattern: str, method: str, path: str, same: bool
) -> None:
    assert same_endpoint(pattern, path, method) is same


async def test_faults_are_used_in_order_and_healed() -> None:
    async with FakeProvider() as fake:
        fake.fail_next(1, Fault.BUSY_503)
        fake.always(lambda text: text == "x", Fault.BAD_REQUEST_400)
        taken = [fake.faults.take("/api/embed", True, ["x"]) for _ in range(3)]
        assert [rule.fault if rule else None for rule in taken] == [
            Fault.BUSY_503,
            Fault.BAD_REQUEST_400,
            Fault.BAD_REQUEST_400,
        ]
        assert fake.faults.take("/api/embed", True, ["y"]) is None
        assert fake.faults.take("/api/show", False, ["x"]) is None
        fake.heal()
        assert fake.faults.take("/api/embed", True, ["x"]) is None
