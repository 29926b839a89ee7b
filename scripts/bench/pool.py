"""The texts that questions are asked about: Python's own symbols, sections of a folder's pages, messages of an export."""

import ast
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

STDLIB = "stdlib"
SYMBOLS = 1500
"""Of about 6,000 symbols with a docstring; the answers are among them whatever they are."""

MOST_CHARS = 512
"""About 128 tokens of every text, so that no model is better by reading further."""

LEAST_CHARS = 20
_NOT_FOR_PEOPLE = (
    "test",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "turtledemo",
    "ensurepip",
    "pydoc_data",
)


@dataclass(frozen=True)
class PoolText:
    """A text, where it is from, and what a question names as its answer."""

    corpus: str
    id: str
    text: str


def corpus(name: str, path: Path | None, answers: Collection[str]) -> list[PoolText]:
    """Return the texts of a corpus: a folder of Markdown pages, a Telegram export, or Python's standard library without a path.

    Raises `ValueError` for a path that is neither.
    """
    if path is None:
        return [_cut(name, id_, text) for id_, text in _sample(answers)]
    if path.is_dir():
        return [_cut(name, *one) for page in sorted(path.rglob("*.md")) for one in _sections(path, page)]
    if path.suffix == ".json":
        return [_cut(name, *one) for one in _messages(path)]
    raise ValueError(f"{path} is no folder and no .json of an export.")


def _cut(name: str, id_: str, text: str) -> PoolText:
    return PoolText(name, id_, text[:MOST_CHARS])


def _sample(answers: Collection[str]) -> list[tuple[str, str]]:
    """Return the answers, and of the other symbols those of the least digests: the same ones in every run."""
    root = Path(sysconfig.get_path("stdlib"))
    found = dict(one for path in sorted(root.rglob("*.py")) for one in _symbols(root, path))
    chosen = sorted(found, key=lambda name: (name not in answers, sha256(name.encode()).digest()))[:SYMBOLS]
    return [(name, found[name]) for name in sorted(chosen)]


def _symbols(root: Path, path: Path) -> Iterator[tuple[str, str]]:
    parts = path.relative_to(root).with_suffix("").parts
    if any(part in _NOT_FOR_PEOPLE or part.startswith("test") for part in parts):
        return
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # some files of the library are bad on purpose
        return
    yield from _documented(module, tree)


def _documented(prefix: str, tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name, said = f"{prefix}.{node.name}", ast.get_docstring(node)
            if said is not None and len(said) >= LEAST_CHARS:
                yield name, f"{name}: {said}"
            if isinstance(node, ast.ClassDef):
                yield from _documented(name, node)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):  # what only some systems have
            yield from _documented(prefix, node)


def _sections(root: Path, page: Path) -> Iterator[tuple[str, str]]:
    section: list[str] = []
    fenced = False
    for line in page.read_text("utf-8").splitlines():
        fenced ^= line.lstrip().startswith("```")
        if line.startswith("#") and not fenced and section:
            yield from _section(root, page, section)
            section = []
        section.append(line)
    yield from _section(root, page, section)


def _section(root: Path, page: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    text = "\n".join(lines).strip()
    if len(text) >= LEAST_CHARS:
        yield page.relative_to(root).as_posix(), text


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    for message in orjson.loads(path.read_bytes())["messages"]:
        parts = message.get("text") or ""
        text = parts if isinstance(parts, str) else "".join(p if isinstance(p, str) else p["text"] for p in parts)
        if text.strip():
            yield str(message["id"]), text
