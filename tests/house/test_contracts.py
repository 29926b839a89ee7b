"""The arrow between the rooms is held: the contracts pass, and a planted import breaks the one it should."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = "The arrow between the rooms"
PIPELINE = "The arrow inside the pipeline"
SIBLINGS = "No two rooms beside each other need each other"
PLANTED = {
    "the domain imports the store": ("domain/text.py", "from evervec.store.embeddings import rows", ROOMS),
    "one room of the middle imports another": ("embedders/jsonl.py", "from evervec.store.embeddings import rows", ROOMS),
    "a vendor's client imports an embedder": ("vendors/ollama/client.py", "from evervec.embedders import catalog", ROOMS),
    "the store imports the pipeline": ("store/embeddings/rows.py", "from evervec.pipeline import resources", ROOMS),
    "the worker imports the command line": ("worker/main.py", "from evervec.cli import main", ROOMS),
    "a room that is in no layer": ("cellar.py", '"""A new room."""', ROOMS),
    "a search needs the batch API": ("pipeline/search/search.py", "from evervec.pipeline.batch import flush", PIPELINE),
    "search and embedding meet": ("pipeline/search/search.py", "from evervec.pipeline.embedding import embed", PIPELINE),
    "upkeep and ingest meet": ("pipeline/upkeep/sweep.py", "from evervec.pipeline.ingest import watch", PIPELINE),
    "a stage reads its own status": ("pipeline/ingest/telegram.py", "from evervec.pipeline.status import runs", PIPELINE),
    "a stage that is in no layer": ("pipeline/cellar.py", '"""A new stage."""', PIPELINE),
    "a cycle in the store": ("store/database/session.py", "from evervec.store.embeddings import rows", SIBLINGS),
    "a cycle in the mirror": ("mirror/segment.py", "from evervec.mirror.disk import files", SIBLINGS),
    "a cycle in the queue": ("queue/names.py", "from evervec.queue import broker", SIBLINGS),
    "a cycle in the command line": ("cli/terminal/output.py", "from evervec.cli.commands import status", SIBLINGS),
    "one vendor imports another": ("vendors/openai/client.py", "from evervec.vendors.gemini import client", "No vendor knows"),
    "one embedder imports another": ("embedders/openai/lines.py", "from evervec.embedders.gemini import lines", "No embedder knows"),
    "one extractor imports another": ("extractors/local/links.py", "from evervec.extractors.ollama import answers", "No extractor knows"),
    "SQL outside the store": ("pipeline/upkeep/sweep.py", "import asyncpg", "SQL lives in the store"),
    "a model made outside the store": ("models.py", "from sqlmodel import SQLModel", "SQL lives in the store"),
    "a vendor in the pipeline": ("pipeline/upkeep/sweep.py", "import nats", "no vendor"),
    "a vendor in the domain": ("domain/text.py", "import ollama", "no vendor"),
    "FAISS outside the mirror": ("pipeline/mirrors/mirror.py", "import faiss", "FAISS lives in the mirror"),
}  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Copy the package with its contracts."""
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
    assert any(contract in row for row in broken), run.stdout


def test_every_contract_is_planted(house: Path) -> None:
    names = [
        contract["name"]
        for contract in tomllib.loads((house / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ]
    assert [name for name in names if not any(contract in name for _, _, contract in PLANTED.values())] == []
