"""The house linters can fail: each law is broken once, and the break is found where it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.linters import house

OPENING = '"""What lives here."""\n'
PLANTED = {
    "commit": (
        "pipeline/ingest/telegram.py",
        "async def f(tx):\n    await tx.commit()\n",
        "transactions are opened by",
    ),
    "rollback": (
        "cli/terminal/run.py",
        "async def f(connection):\n    await connection.rollback()\n",
        "transactions are opened by",
    ),
    "transaction": (
        "store/rows.py",
        "async def f(tx):\n    async with tx.transaction():\n        ...\n",
        "transactions",
    ),
    "unnamed task": ("worker/tasks.py", "@broker.task\nasync def t():\n    ...\n", "no task_name"),
    "task named by hand": ("worker/tasks.py", "@broker.task(task_name='t')\nasync def t():\n    ...\n", "no task_name"),
    "wall clock": ("pipeline/upkeep/sweep.py", "import time\nx = time.time()\n", "PostgreSQL's now()"),
    "utcnow": ("store/rows.py", "from datetime import datetime\nx = datetime.utcnow()\n", "PostgreSQL's now()"),
    "import pickle": ("queue/broker.py", "import pickle\n", "pickle is not imported"),
    "from pickle": ("queue/broker.py", "from pickle import loads\n", "pickle is not imported"),
    "silent except": (
        "queue/jetstream/pull.py",
        "try:\n    x = 1\nexcept ValueError:\n    pass\n",
        "an except that only passes",
    ),
    "text of a node": (
        "sources/structure/definition_names.py",
        "from tree_sitter import Node\nx = node.text\n",
        "parsed bytes",
    ),
    "long file": ("store/rows.py", "x = 1\n" * house.MOST_LINES, "at most"),
    "module named utils": ("store/utils.py", "x = 1\n", "says nothing"),
}
ALLOWED = {
    "the only commit": ("store/session.py", "async def f(tx):\n    await tx.commit()\n"),
    "a transaction of the database": ("pipeline/ingest/telegram.py", "async def f(r):\n    async with r.database.transaction():\n        ...\n"),
    "a task with its name": ("worker/tasks.py", "@broker.task(task_name=names.EMBED)\nasync def t():\n    ...\n"),
    "a clock that only measures": ("pipeline/upkeep/sweep.py", "from time import monotonic\nx = monotonic()\n"),
    "an except that answers": ("queue/jetstream/pull.py", "try:\n    x = 1\nexcept ValueError:\n    x = 2\n"),
}  # fmt: skip


def findings(path: Path, source: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(house, "PACKAGE", root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return [f"{found.name}:{line}: {text}" for found, line, text in house.findings([path])]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_break_is_found_and_nothing_else(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, source, said = PLANTED[planted]
    found = findings(tmp_path / name, OPENING + source, tmp_path, monkeypatch)
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize("allowed", ALLOWED)
def test_what_the_laws_allow_is_left_alone(allowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, source = ALLOWED[allowed]
    assert findings(tmp_path / name, OPENING + source, tmp_path, monkeypatch) == []


def test_a_module_without_an_opening_sentence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = findings(tmp_path / "store" / "rows.py", "x = 1\n", tmp_path, monkeypatch)
    assert "no docstring" in found


def test_every_rule_is_planted() -> None:
    caught: set[str] = set()
    for name, source, _ in PLANTED.values():
        path = house.PACKAGE / name
        for rule in house.RULES:
            if rule is not house.openings and list(rule(path, ast.parse(OPENING + source))):
                caught.add(rule.__name__)
    assert caught == {rule.__name__ for rule in house.RULES} - {"openings"}


def test_the_house_keeps_its_own_laws() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/linters/house.py"], cwd=house.ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "")
