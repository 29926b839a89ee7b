"""`--json`: one document on stdout whatever else is said, in the shapes that scripts rely on."""

from pathlib import Path
from typing import Any

import pytest

from evervec.sources.telegram.demo import demo_chat_path
from tests.cli.command import Command
from tests.cli.exports import message, write

COUNTS = {"rows", "embedded", "pending", "failed", "empty"}


@pytest.fixture
def filled(evervec: Command) -> Command:
    """Fill a database that holds the demo's chat, embedded."""
    assert evervec("ingest", "telegram", demo_chat_path(), "--project", "demo", "--dataset", "chat").code == 0
    assert evervec("backfill").code == 0
    return evervec


def test_the_shapes_that_scripts_rely_on(filled: Command) -> None:
    status = filled("status", "--json").document()
    assert status.keys() >= COUNTS | {"datasets", "provider", "batches", "queue", "watermark"}
    (dataset,) = status["datasets"]
    assert dataset.keys() >= COUNTS | {"project", "dataset", "kinds"}
    assert dataset["kinds"]["message"].keys() == COUNTS
    assert (status["rows"], status["embedded"], status["pending"]) == (212, 212, 0)
    assert dataset["mirror"] == {"state": "absent", "vectors": 0, "lag_ms": None, "in_sync": None, "checked_at": None}

    search = filled("search", "where are pictures stored", "-k", 3, "--json").document()
    assert search.keys() >= {"engine", "watermark", "pending_in_scope", "milliseconds", "hits"}
    assert len(search["hits"]) == 3
    assert search["widened"] is False
    assert all(hit.keys() >= {"kind", "id", "dataset", "score", "text"} for hit in search["hits"])

    for arguments in (("backfill",), ("backfill", "--dry-run")):
        report = filled(*arguments, "--json").document()
        assert report.keys() >= {"pending", "embedded", "failed", "sent", "reused", "seconds"}
        assert report["sent"] == 0


def documents(hit: int) -> list[tuple[tuple[object, ...], str]]:
    return [
        (("similar", "message", hit), "hits"),
        (("duplicates", "--threshold", "0.5"), "pairs"),
        (("mirror", "rebuild"), "holds"),
        (("mirror", "check"), "in_sync"),
        (("mirror", "check", "--quick", "--dry-run"), "in_sync"),
        (("mirror", "compact", "--dataset", "chat"), "holds"),
        (("mirror", "status", "--project", "demo"), "datasets"),
        (("failed", "list"), "failed"),
        (("failed", "retry"), "reopened"),
        (("failed", "discard"), "discarded"),
        (("providers", "list"), "providers"),
        (("providers", "test", "local"), "milliseconds"),
        (("providers", "use", "local"), "active"),
        (("providers", "add", "second", "--type", "local"), "dimensions"),
        (("providers", "remove", "second"), "removed"),
        (("migrate",), "schema"),
        (("version",), "version"),
    ]


def test_every_command_that_reports_prints_one_document(filled: Command) -> None:
    hit = filled("search", "wrong clock", "--kind", "message", "-k", 1, "--json").document()["hits"][0]["id"]
    for arguments, key in documents(hit):
        done = filled(*arguments, "--json")
        assert done.code == 0, (arguments, done)
        assert key in done.document(), arguments


def test_warnings_never_reach_the_document(evervec: Command, tmp_path: Path) -> None:
    path = write(tmp_path, [message(1), message(2, date=None, date_unixtime=None)])
    done = evervec(
        "ingest", "telegram", path, "--json", EVERVEC_NATS_URL="nats://127.0.0.1:1", EVERVEC_LOG_LEVEL="DEBUG"
    )
    report: dict[str, Any] = done.document()
    assert (report["created"], report["rejections"], report["pending"], report["worker_listens"]) == (1, 1, 1, False)
    assert "127.0.0.1:1" in report["queue_reason"]
    assert "doorbell" in done.err


def test_an_error_leaves_stdout_empty(evervec: Command) -> None:
    for arguments in (
        ("mirror", "check", "--dataset", "nowhere"),
        ("status", "--dataset", "nowhere"),
        ("search", " "),
        ("failed", "retry", "nonsense"),
    ):
        evervec(*arguments, "--json").refused()
