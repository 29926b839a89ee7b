"""The example of the batch lane keeps its word: five thousand chunks, half the price, and nothing stays."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import bare_environment

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "deferred.py"
MONEY = r"\$(\d+\.\d{4})"


def run(folder: Path, said: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """Start the example from any folder, with a folder of its own for its files."""
    surroundings = bare_environment(TMPDIR=str(folder), COLUMNS="100")
    surroundings.pop("GEMINI_API_KEY", None)
    surroundings |= environment
    command = [sys.executable, str(EXAMPLE)]
    return subprocess.run(
        command, env=surroundings, input=said, cwd=folder, capture_output=True, text=True, timeout=110
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example puts what it throws away."""
    return tmp_path_factory.mktemp("deferred")


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """Return what one run prints."""
    done = run(folder)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def numbers(pattern: str, text: str) -> list[int]:
    return [int(found.replace(",", "")) for found in re.findall(pattern, text)]


def test_about_five_thousand_chunks_wait_and_all_of_them_come_back(printed: str) -> None:
    (chunks,) = numbers(r"are ([\d,]+) chunks, and wait", printed)
    assert 4_500 <= chunks <= 5_500
    assert sum(numbers(r"3\. ([\d,]+) vectors are there, 0 texts failed", printed)) <= chunks
    assert numbers(r"([1-9]\d*) texts failed", printed) == []
    sent = sum(numbers(r"is sent: ([\d,]+) texts", printed))
    assert chunks * 0.9 <= sent <= chunks, "equal texts are sent once"


def test_what_it_knows_is_found_again(printed: str) -> None:
    assert "   1.00  " in printed.split("is nearest to:")[1]


def test_the_table_adds_up_to_half_the_price(printed: str) -> None:
    rows = re.findall(rf"│ (\S+) +│ (\w*) +│ +([\d,]+) │ +([\d,]+) │ +{MONEY} │ +{MONEY} │ +{MONEY} │", printed)
    *jobs, together = [(name, status, int(t.replace(",", "")), int(n.replace(",", "")), *map(float, usd)) for name, status, t, n, *usd in rows]  # fmt: skip
    assert jobs
    assert together[0] == "together"
    assert {status for _, status, *_ in jobs} == {"COMPLETED"}
    assert [sum(column) for column in list(zip(*jobs, strict=True))[2:4]] == list(together[2:4])
    online, deferred, saved = together[4:]
    assert online == pytest.approx(together[3] * 0.15e-6, abs=1e-4)
    assert (deferred, saved) == (pytest.approx(online / 2, abs=1e-4),) * 2


@pytest.mark.parametrize("said", ["", "n\n", "perhaps\n"])
def test_a_real_key_is_asked_about_before_anything_starts(folder: Path, said: str) -> None:
    done = run(folder, said, GEMINI_API_KEY="a-real-key", HTTPS_PROXY="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "this would cost about $" in done.stdout
    assert "1." not in done.stdout.replace("$", "").split("[y/N]")[1]
    assert "a-real-key" not in done.stdout


def test_nothing_stays(printed: str, folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
