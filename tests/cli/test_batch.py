"""`evervec batch` with a provider that has a batch API: sent, waited for, taken in; what it says, and its exit codes."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evervec.cli.render.batch_jobs import show_flush
from evervec.pipeline.batch.flush import FlushResult
from evervec.store import secrets
from tests.cli.batch_provider import API_KEY, embedded, ingest, jobs, with_provider
from tests.cli.command import Command
from tests.cli.exports import message, write
from tests.fakes.__main__ import HOW
from tests.fakes.faults import Fault
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread

PATIENCE = 60.0
ROWS = 30
SHAPE = {
    "id": str,
    "external_id": str,
    "job_type": str,
    "status": str,
    "rows": int,
    "ready": int,
    "failed": int,
    "created_at": str,
}


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProviderThread(dims=32, api_key=API_KEY) as provider:
        yield provider


@pytest.fixture(params=["gemini", "openai"])
def batched(evervec: Command, fake: FakeProvider, request: pytest.FixtureRequest) -> Command:
    """`evervec` whose active provider has a batch API and a price."""
    return with_provider(evervec, fake, request.param)


@pytest.fixture
def gemini(evervec: Command, fake: FakeProvider) -> Command:
    """Return the command with one provider, where the provider makes no difference."""
    return with_provider(evervec, fake, "gemini")


def deferred(evervec: Command, folder: Path, count: int = ROWS) -> dict[str, Any]:
    """Messages that wait for a batch job."""
    return ingest(evervec, folder, count, "--batch")


def test_deferred_rows_are_sent_waited_for_and_found(batched: Command, fake: FakeProvider, tmp_path: Path) -> None:
    assert deferred(batched, tmp_path)["deferred"] == ROWS
    online = len(fake.requests)
    planned = batched("batch", "flush", "--dry-run", "--json").document()
    assert (planned["rows"], planned["planned_jobs"], planned["jobs"], planned["dry_run"]) == (ROWS, 1, [], True)
    assert (len(fake.requests), jobs(batched)) == (online, [])

    sent = batched("batch", "flush", "--max-batch-size", 20)
    assert sent.code == 0, sent
    assert re.search(r"30 rows in 2 jobs \(30 texts, \d+ tokens\): \$0\.\d{4} instead of \$0\.\d{4}\n", sent.out), sent
    assert "`evervec batch sync --wait`" in sent.err
    assert [(job["status"], job["rows"]) for job in jobs(batched)] == [("SUBMITTED", 10), ("SUBMITTED", 20)]

    running = batched("batch", "sync")
    assert (running.code, "2 jobs still open" in running.out) == (0, True), running
    done = batched("batch", "sync", "--wait", "--poll", 0.1, "--json")
    assert (done.code, done.document()["ready"], done.document()["problems"]) == (0, ROWS, []), done
    assert {name: type(jobs(batched)[0][name]) for name in SHAPE} == SHAPE
    assert {job["status"] for job in jobs(batched)} == {"COMPLETED"}
    assert embedded(batched) == ROWS
    assert (
        batched("search", "Note 7 of many.", "-k", 1, "--json")
        .document()["hits"][0]["text"]
        .endswith("Note 7 of many.")
    )
    assert max(fake.batches.texts_paid().values()) == 1


def test_waiting_looks_until_no_job_is_open(gemini: Command, fake: FakeProvider, tmp_path: Path) -> None:
    deferred(gemini, tmp_path)
    fake.batches.polls = 3
    assert gemini("batch", "flush").code == 0
    done = gemini("batch", "sync", "--wait", "--poll", 0.1)
    assert (done.code, "30 ready, 0 failed" in done.out, "0 jobs still open" in done.out) == (0, True, True), done
    # said once, and not at every look
    assert done.err.count("1 job open, 0 rows ready; looking again in 0 s") == 1, done


def test_ctrl_c_stops_the_waiting_and_not_the_jobs(gemini: Command, fake: FakeProvider, tmp_path: Path) -> None:
    deferred(gemini, tmp_path)
    fake.batches.polls = 1000
    assert gemini("batch", "flush").code == 0
    process = gemini.start("batch", "sync", "--wait", "--json")
    assert process.stderr is not None
    assert "1 job open" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, ""), err
    assert "Interrupted." in err
    assert "Traceback" not in err
    fake.batches.polls = 0
    assert gemini("batch", "sync", "--json").document()["ready"] == ROWS


def test_a_failed_row_is_counted_exits_1_and_has_its_reason(
    batched: Command, fake: FakeProvider, tmp_path: Path
) -> None:
    deferred(batched, tmp_path)
    fake.batches.fail_lines(lambda text: "Note 7 " in text, "This text is not wanted.")
    fake.batches.polls = 0
    assert batched("batch", "flush").code == 0
    done = batched("batch", "sync")
    assert (done.code, "29 ready, 1 failed" in done.out) == (1, True), done
    assert "`evervec failed list`" in done.err
    assert "This text is not wanted." in batched("failed", "list").out
    assert batched("batch", "sync").code == 0  # told once


def test_a_provider_that_is_out_is_a_problem_and_loses_nothing(
    batched: Command, fake: FakeProvider, tmp_path: Path
) -> None:
    deferred(batched, tmp_path)
    assert batched("batch", "flush").code == 0
    fake.always(None, Fault.ERROR_500, endpoint="batches")
    done = batched("batch", "sync")
    assert (done.code, "does not work at the moment" in done.err, "tries it again" in done.err) == (1, True, True), done
    done.tidy()
    fake.heal()
    fake.batches.polls = 0
    assert batched("batch", "sync", "--wait", "--poll", 0.1, "--json").document()["ready"] == ROWS


def test_a_wrong_key_is_told_and_the_rows_wait_as_before(gemini: Command, fake: FakeProvider, tmp_path: Path) -> None:
    deferred(gemini, tmp_path)
    fake.api_key = "another"
    done = gemini("batch", "flush")
    assert (done.code, "does not accept the key" in done.err) == (1, True), done
    done.tidy()
    fake.api_key = API_KEY
    assert gemini("batch", "flush", "--json").document()["rows"] == ROWS


def test_too_little_for_a_job_is_no_failure_and_says_why(gemini: Command, fake: FakeProvider, tmp_path: Path) -> None:
    assert "Nothing waits to be sent." in gemini("batch", "flush").out
    deferred(gemini, tmp_path)
    done = gemini("batch", "flush", "--min-batch-size", 500)
    assert (done.code, "Nothing was sent." in done.out) == (0, True), done
    assert "30 rows wait, and a job has to have 500" in done.err
    assert fake.batches.jobs == []


def test_no_room_at_the_provider_leaves_the_rest_for_later(gemini: Command, fake: FakeProvider, tmp_path: Path) -> None:
    deferred(gemini, tmp_path)
    fake.batches.most_jobs = 1
    done = gemini("batch", "flush", "--max-batch-size", 20)
    assert (done.code, "20 rows in 1 job" in done.out) == (0, True), done
    assert "10 rows not sent: gemini takes no more for now" in done.err
    fake.batches.polls = 0
    done = gemini("batch", "process", "--json")
    assert done.code == 0, done
    assert (done.document()["synced"]["ready"], done.document()["flushed"]["rows"]) == (20, 10)


def test_processing_takes_in_and_then_sends(batched: Command, fake: FakeProvider, tmp_path: Path) -> None:
    fake.batches.polls = 0
    deferred(batched, tmp_path)
    first = batched("batch", "process", "--json").document()
    assert (first["synced"]["ready"], first["flushed"]["rows"]) == (0, ROWS)
    deferred(batched, tmp_path, ROWS + 5)
    said = batched("batch", "process")
    assert said.code == 0, said
    assert "30 ready" in said.out
    assert "5 rows in 1 job" in said.out


def test_one_job_is_shown_and_cancelled_by_the_beginning_of_its_id(
    batched: Command, fake: FakeProvider, tmp_path: Path
) -> None:
    deferred(batched, tmp_path)
    assert batched("batch", "flush").code == 0
    (job,) = jobs(batched)
    listed = batched("batch", "list").out
    beginning = listed.splitlines()[1].split()[0]
    assert job["id"].startswith(beginning)
    shown = batched("batch", "show", beginning)
    assert (shown.code, job["id"] in shown.out, job["external_id"] in shown.out) == (0, True, True), shown
    assert "30: 0 ready, 0 failed, 0 edited or gone meanwhile, 0 given back, 30 without an answer" in shown.out
    assert batched("batch", "show", job["external_id"], "--json").document() == job

    cancelled = batched("batch", "cancel", beginning)
    assert (cancelled.code, "is CANCELLED: 30 rows wait again" in cancelled.out) == (0, True), cancelled
    batched("batch", "cancel", beginning).refused("is over already")
    assert batched("batch", "flush", "--json").document()["rows"] == ROWS
    # the first eight digits are the database's, the same for every job
    batched("batch", "show", job["id"][:8]).refused("Several batch jobs begin with")
    batched("batch", "show", "nonsense").refused("There is no batch job 'nonsense'")


def test_a_provider_without_batches_says_which_ones_have_them(evervec: Command, tmp_path: Path) -> None:
    path = write(tmp_path, [message(1)])
    for arguments in (("batch", "flush"), ("ingest", "telegram", path, "--batch"), ("backfill", "--deferred")):
        evervec(*arguments).refused("'local' is of type local", "gemini or openai")
    assert evervec("ingest", "telegram", path).code == 0
    nothing = evervec("batch", "sync")
    assert (nothing.code, "No batch job is open." in nothing.out) == (0, True), nothing
    assert "No batch job yet." in evervec("batch", "list").out


def test_sizes_and_options_that_can_not_be_are_refused(evervec: Command) -> None:
    evervec("batch", "sync", "--poll", 1).refused("--poll goes with --wait")
    evervec("batch", "flush", "--min-batch-size", 0).refused("--min-batch-size")
    evervec("batch", "flush", "--dataset", "nowhere").refused("There is no dataset 'nowhere'")


def test_a_job_that_is_refused_at_creation_exits_1_and_its_rows_are_done_in_the_end(
    gemini: Command, fake: FakeProvider, tmp_path: Path
) -> None:
    deferred(gemini, tmp_path)
    fake.fail_next(1, Fault.BAD_REQUEST_400, endpoint="asyncBatchEmbedContent")
    done = gemini("batch", "flush")
    assert (done.code, "refused the job" in done.err) == (1, True), done
    fake.batches.polls = 0
    ends = time.monotonic() + PATIENCE
    while embedded(gemini) < ROWS:
        assert time.monotonic() < ends
        gemini("batch", "sync").tidy()


def test_the_jobs_of_a_removed_provider_give_their_rows_back(
    gemini: Command, fake: FakeProvider, tmp_path: Path
) -> None:
    deferred(gemini, tmp_path)
    assert gemini("batch", "flush").code == 0
    about = ("--type", "gemini", "--base-url", fake.url, "--model", "embedder", "--api-key", API_KEY)
    assert gemini("providers", "add", "second", *about).code == 0
    assert gemini("providers", "use", "second").code == 0
    assert gemini("providers", "remove", "gemini").code == 0
    done = gemini("batch", "sync")
    done.tidy()
    assert (done.code, jobs(gemini)[0]["status"], embedded(gemini)) == (0, "FAILED", ROWS), done


def test_the_commands_that_the_fakes_help_shows_are_taken(evervec: Command, fake: FakeProvider) -> None:
    commands = [line.split()[1:] for line in HOW.splitlines() if line.startswith("  evervec ")]
    assert len(commands) == 3
    key = secrets.new_key()
    for number, words in enumerate(commands):
        given = [word.replace("URL", fake.url) for word in words]
        given[2] = f"fake-{number}"
        assert evervec(*given, EVERVEC_PROVIDER_KEY=API_KEY, EVERVEC_SECRET_KEY=key).code == 0, given


@pytest.mark.parametrize(
    ("flushed", "dry", "said"),
    [
        (FlushResult("p"), True, "Nothing waits to be sent."),
        (FlushResult("p", files=3, files_waiting=3, planned_jobs=1), True, "3 pictures and sounds for 1 job"),
        (FlushResult("p", rows=1, files=1, planned_jobs=2), True, "1 row and 1 picture or sound for 2 jobs"),
        (FlushResult("p", files_waiting=3, reason="3 wait"), True, "Nothing would be sent."),
        (FlushResult("p", files_waiting=3, reason="3 wait"), False, "Nothing was sent. 3 wait. Run this again later."),
        (
            FlushResult("p", rows=20, waiting=25, planned_jobs=2, reason="5 rows wait"),
            True,
            "5 rows not sent: 5 rows wait.",
        ),
        (FlushResult("p", files_failed=2), False, "error: 2 pictures and sounds could not be sent and are given up"),
    ],
)
def test_what_is_said_of_rows_and_of_files(
    capsys: pytest.CaptureFixture[str], flushed: FlushResult, dry: bool, said: str
) -> None:
    show_flush(flushed, dry=dry)
    told = capsys.readouterr()
    words = " ".join((told.out + told.err).replace("Nothing was sent, nothing was changed.", "").split())
    assert said in words


def test_a_job_that_is_not_sent_shows_why(gemini: Command, fake: FakeProvider, tmp_path: Path) -> None:
    deferred(gemini, tmp_path)
    fake.always(None, Fault.BUSY_503, endpoint="POST /upload/v1beta/files")
    sent = gemini("batch", "flush")
    assert (sent.code, "up to a day" in sent.err) == (1, False)
    assert "0 rows not sent" not in sent.err
    assert "The last job is not sent yet, and `evervec batch sync` continues it: " in sent.err
    synced = gemini("batch", "sync")
    assert synced.code == 1
    assert "503" in synced.err
    assert "503" in gemini("batch", "list").out
    fake.heal()
    assert gemini("batch", "sync").code == 0
