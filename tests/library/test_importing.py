"""What is imported in a process of its own: `import evervec` loads no engine, the command line no parser and no vendor."""

import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2] / "backend"
HEAVY = ("numpy", "asyncpg", "faiss", "sqlalchemy", "google.genai", "openai", "httpx", "wordllama", "nats", "pydantic")
PARSERS = ("bs4", "pypdf", "markdown_it", "tree_sitter", "charset_normalizer")
FOR_SOME = ("faiss", "google.genai", "openai", "httpx", "wordllama", "tokenizers", "fastapi", "uvicorn", "alembic")
FOR_HELP = (
    "asyncio",
    "uvloop",
    "structlog",
    "orjson",
    "taskiq",
    "evervec.settings",
    "evervec.runtime",
    "evervec.pipeline",
)
FOR_STATUS = ("taskiq", "taskiq_nats", "aiohttp", "sqlalchemy", "sqlmodel", "cryptography", "semchunk", "rich.progress")
PROBE = """
import sys
opened = []
watched = ("socket.__new__", "socket.connect", "_thread.start_new_thread", "subprocess.Popen", "os.fork")
sys.addaudithook(lambda event, arguments: opened.append(event) if event in watched else None)
{statement}
loaded = [name for name in {names!r} if name in sys.modules]
sys.stderr.write(f"{{opened}} {{loaded}}")
"""


def run(statement: str, names: tuple[str, ...] = HEAVY) -> tuple[str, str]:
    """Run this in a process; return its stdout, and on stderr what it opened and which modules it loaded."""
    program = PROBE.format(statement=statement, names=names)
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(BACKEND)!r})\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "import evervec",
        "from evervec import SemanticCore, SyncSemanticCore, Document",
        "from evervec import SemanticCore; SemanticCore.open('postgresql://nobody@127.0.0.1:1/none')",
        "from evervec import Document; Document.from_text('a', 'text')",
    ],
)
def test_importing_is_light_and_starts_nothing(statement: str) -> None:
    assert run(statement) == ("", "[] []")


def test_the_command_line_loads_nothing_that_only_some_commands_need() -> None:
    assert run("import evervec.cli.app", (*PARSERS, *FOR_SOME)) == ("", "[] []")


def test_the_help_of_the_command_line_loads_no_command_and_no_library_of_ours() -> None:
    statement = "import sys; sys.argv = ['evervec', '--help']\nfrom evervec.cli.main import main\ntry:\n    main()\nexcept SystemExit: pass"
    out, seen = run(statement, (*HEAVY, *FOR_HELP))
    assert "Start with" in out
    assert seen == "[] []"


def test_the_status_loads_nothing_that_it_does_not_need() -> None:
    asked = """
import asyncio
import evervec.cli.commands.status
evervec.log.configure("ERROR")
from evervec.queue.queue_reader import QueueReader
try:
    asyncio.run(QueueReader("nats://127.0.0.1:1", stream="NONE", connect_seconds=0.1).startup())
except evervec.errors.QueueDownError:
    opened.clear()
import evervec.queue.depth
"""
    assert run(asked, (*PARSERS, *FOR_SOME, *FOR_STATUS)) == ("", "[] []")


@pytest.mark.parametrize(
    ("statement", "seen"), [("import socket; socket.socket()", "socket.__new__"), ("import numpy", "numpy")]
)
def test_the_probe_sees_what_it_looks_for(statement: str, seen: str) -> None:
    assert seen in run(statement)[1]


def test_a_name_that_is_not_there_is_told_as_python_does() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run("import evervec; evervec.Nothing")
    assert "module 'evervec' has no attribute 'Nothing'" in failed.value.stderr
