"""What is not under `evervec`, `.engine`, `.models`, `.tasks`, `.client` or an integration is private: our own pages and examples use nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    "evervec",
    "evervec.client",
    "evervec.engine",
    "evervec.errors",
    "evervec.langchain",
    "evervec.llamaindex",
    "evervec.models",
    "evervec.tasks",
}
TOURS = {
    "examples/attached/run.py",
    *(f"examples/marketplace/{name}.py" for name in ("looking", "report", "run", "shop", "story", "sync_task")),
}
"""Examples that play the operator as well: they start workers and the API in this process, where a team has commands."""


def code() -> Iterator[tuple[str, str]]:
    """Yield each example, and each block of Python of a page, with its place."""
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]:
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S), 1):
            yield f"{path.relative_to(ROOT)}, block {number}", block


def private(text: str) -> set[str]:
    """Return the modules of ours that a program imports and that are not public."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "evervec" else set()
            # `from evervec import engine` imports a module, `from evervec import Document` a name
            found |= {node.module} | {name for name in names if name.rpartition(".")[2].islower()}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "evervec"} - PUBLIC


def test_pages_and_examples_import_public_names_alone() -> None:
    places = dict(code())
    assert len(places) > 10
    assert places.keys() >= TOURS
    assert {place: private(text) for place, text in places.items() if place not in TOURS and private(text)} == {}


def test_an_example_that_needs_nothing_private_is_no_tour() -> None:
    assert [place for place, text in code() if place in TOURS and not private(text)] == []


@pytest.mark.parametrize(
    "line", ["from evervec.store import datasets", "import evervec.runtime", "from evervec import runtime"]
)
def test_the_check_sees_what_is_private(line: str) -> None:
    assert private(f"{line}\nfrom evervec import engine, Document\nimport os") != set()
