"""The laws of this house that no tool knows. Each rule says what it forbids, and why, in one line."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backend" / "evervec"
MOST_LINES = 400
NAMELESS = {"utils", "util", "common", "helpers", "base", "misc"}
TRANSACTION_VERBS = {"commit", "rollback", "transaction", "begin"}

Finding = tuple[Path, int, str]


def commits(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """The only commit is in store/session.py: whoever opens a transaction owns it (law 6)."""
    if path == PACKAGE / "store" / "session.py":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in TRANSACTION_VERBS:
            owner = ast.unparse(node.value)
            if not owner.endswith("database"):
                yield path, node.lineno, f"{owner}.{node.attr}: transactions are opened by store/session.py's Database"


def tasks(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """Every task has a name from queue/names.py: a moved function must not orphan messages in flight."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                if re.search(r"broker\.task\b", text) and "task_name=names." not in text:
                    yield path, node.lineno, f"task {node.name} has no task_name from queue/names.py"


def clocks(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """No wall clock of a process decides anything: leases and delays live on PostgreSQL's clock."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.time", "datetime.utcnow"}:
            yield path, node.lineno, f"{ast.unparse(node.func)}(): use PostgreSQL's now(), or time.monotonic()"


def pickles(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """No pickle anywhere: whoever can write a bucket or a file could run code here."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if "pickle" in names or (isinstance(node, ast.ImportFrom) and node.module == "pickle"):
            yield path, getattr(node, "lineno", 1), "pickle is not imported here"


def silences(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """An error is answered, not swallowed: no `except` whose body is `pass`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body):
            yield (
                path,
                node.lineno,
                "an except that only passes: say what happens instead, or use suppress() for a named one",
            )


def tree_texts(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """A tree's node is asked for its place, never for its text: the bytes behind that are gone, and the process with them."""
    if any(isinstance(node, ast.ImportFrom) and node.module == "tree_sitter" for node in ast.walk(tree)):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == "text":
                yield path, node.lineno, f"{ast.unparse(node)}: cut the text out of the parsed bytes"


def openings(path: Path, tree: ast.Module) -> Iterator[Finding]:
    """Each module opens with one sentence: what lives here and what does not. Its name says something, its size too."""
    if not ast.get_docstring(tree):
        yield path, 1, "no docstring: say in one sentence what lives here"
    if path.stem in NAMELESS:
        yield path, 1, f"a module named {path.stem} says nothing"
    lines = len(path.read_text().splitlines())
    if lines > MOST_LINES:
        yield path, 1, f"{lines} lines, {MOST_LINES} at most: it wants to be two"


RULES = (commits, tasks, clocks, pickles, silences, tree_texts, openings)


def findings(paths: list[Path]) -> list[Finding]:
    """What every rule says of every file."""
    found: list[Finding] = []
    for path in paths:
        tree = ast.parse(path.read_text(), str(path))
        for rule in RULES:
            found += rule(path, tree)
    return found


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    found = findings(sorted(PACKAGE.rglob("*.py")))
    for path, line, text in found:
        print(f"{path.relative_to(ROOT)}:{line}: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
