"""docs/batch.md as its reader follows it: every command and the program, with the fake where Google would be."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evervec.settings import Settings
from tests.cli.batch_provider import API_KEY, embedded, jobs, with_provider
from tests.cli.command import Command
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread

PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
PATIENCE = 60.0


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProviderThread(dims=32, api_key=API_KEY) as provider:
        provider.batches.polls = 0
        yield provider


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the reader's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "retry.md").write_text("# Retrying\n\nA failed job is tried again.\n")
    return tmp_path / "notes"


def shown() -> list[list[str]]:
    """Return the commands of the page, as words."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert all(line[:2] == ["$", "evervec"] for line in lines), lines
    return [line[2:] for line in lines]


def test_every_command_of_the_page_works(evervec: Command, fake: FakeProvider, notes: Path) -> None:
    from evervec.store.secrets import new_key

    reader = Command(evervec.environment | {"EVERVEC_PROVIDER_KEY": API_KEY, "EVERVEC_SECRET_KEY": new_key()})
    commands = shown()
    assert len(commands) > 10
    for place, arguments in enumerate(commands):
        at = ["--base-url", fake.url] if arguments[:2] == ["providers", "add"] else []
        done = reader(*arguments, *at)
        assert done.code == 0, (arguments, done)
        done.tidy()
        if "--json" in arguments:
            done.document()
        if place == 3:  # the four commands are the whole way
            assert (embedded(reader), fake.batches.texts_paid().total()) == (1, 1)


def test_the_program_of_the_page_works(evervec: Command, fake: FakeProvider, notes: Path) -> None:
    reader = with_provider(evervec, fake, "gemini")
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=reader.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.splitlines()[0] == "1 rows are ready"
    assert "A failed job is tried again." in done.stdout
    assert [job["status"] for job in jobs(reader)] == ["COMPLETED"]


def test_the_settings_of_the_page_are_those_there_are() -> None:
    fields = Settings.model_fields
    assert "(settings.md)" in PAGE
    settings = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `EVERVEC_(BATCH_\w+)` \| `?(\w+)`? \|", settings, re.MULTILINE))
    assert set(rows) == {name.upper() for name in fields if name.startswith("batch_")}
    for name, value in rows.items():
        assert (fields[name.lower()].default or "off") == (value if value == "off" else float(value))


def test_the_limits_of_the_page_are_those_of_the_clients() -> None:
    from evervec.embedders.gemini import batch as gemini_batch
    from evervec.embedders.openai import batch as openai_batch

    gemini, openai = gemini_batch.GEMINI_BATCH_LIMITS, openai_batch.OPENAI_BATCH_LIMITS
    for limits in (gemini, openai):
        size = limits.bytes / 1e6
        assert f"{limits.rows:,} rows, {f'{size / 1e3:g} GB' if size >= 1e3 else f'{size:g} MB'}" in PAGE
    assert f"{gemini.jobs} jobs, {gemini.queued_tokens:,} tokens (tier 1)" in PAGE
    assert f"| {openai.queued_tokens:,} tokens |" in PAGE
