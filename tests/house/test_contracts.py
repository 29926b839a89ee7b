"""The arrow between the rooms is held: the contracts pass, and a planted import breaks the one it should."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANTED = {
    "the domain reads the store": ("domain/text.py", "from evervec.store import rows", "arrow"),
    "one middle room reads another": ("embedders/local/embedder.py", "from evervec.store import rows", "arrow"),
    "the store reads the pipeline": ("store/rows.py", "from evervec.pipeline import embed", "arrow"),
    "the worker reads the command line": ("worker/main.py", "from evervec.cli import main", "arrow"),
    "SQL outside the store": ("pipeline/upkeep/sweep.py", "import asyncpg", "SQL lives in the store"),
    "a vendor in the pipeline": ("pipeline/upkeep/sweep.py", "import nats", "no vendor"),
    "a vendor in the domain": ("domain/text.py", "import ollama", "no vendor"),
    "a room that is in no layer": ("cellar.py", '"""A new room."""', "arrow"),
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package with its contracts."""
    shutil.copytree(ROOT / "backend", tmp_path / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def contracts(house: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".venv" / "bin" / "lint-imports", "--no-logo", "--no-cache"],
        cwd=house,
        env={"PYTHONPATH": str(house / "backend"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_rooms_keep_to_the_arrow(house: Path) -> None:
    run = contracts(house)
    assert run.returncode == 0, run.stdout
    assert "0 broken" in run.stdout


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_import_breaks_its_contract(house: Path, planted: str) -> None:
    name, line, contract = PLANTED[planted]
    path = house / "backend" / "evervec" / name
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    run = contracts(house)
    assert run.returncode != 0
    broken = [row for row in run.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(contract in row for row in broken) or "cellar" in run.stdout + run.stderr, run.stdout
