"""Every `evervec …` command that a message, a docstring or a page of the documentation names does exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from evervec.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MODULES = sorted((ROOT / "backend" / "evervec").rglob("*.py"))
NAMED = re.compile(r"(?<!`)`((?:[A-Z_]+=\S+ )*evervec(?:\s[^`]+)?)`")
TYPED = re.compile(r"^\s*\$ ((?:[A-Z_]+=\S+ )*evervec .+)$", re.MULTILINE)
HELP = {"--help", "-h"}
ROOT_COMMAND: Any = get_command(app)


def texts_of(module: Path) -> Iterator[str]:
    """Yield the string constants of a module, docstrings among them; a value inside an f-string is a word."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def commands_in(path: Path) -> list[str]:
    """Return the commands that a module or a page names, each with single blanks."""
    if path.suffix == ".py":
        found = [named for text in texts_of(path) for named in NAMED.findall(text)]
    else:
        text = path.read_text()
        found = [*NAMED.findall(text), *TYPED.findall(text)]
    return [" ".join(command.split()) for command in found]


def wrong(line: str) -> str | None:
    """Return what does not exist in a command line, or None."""
    words = iter(
        line.split("evervec", 1)[1].split() if "…" in line else shlex.split(line.split("evervec", 1)[1], comments=True)
    )
    command = ROOT_COMMAND
    for word in words:
        if word.startswith("-") and len(word) > 1:
            options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            if word.partition("=")[0] not in options | HELP:
                return f"{line!r}: {command.name!r} has no option {word}"
        elif commands := getattr(command, "commands", None):
            if word in ("…", "..."):
                return None
            if word not in commands:
                return f"{line!r}: there is no command {word!r} in {command.name!r}"
            command = commands[word]
    return None


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_named_exists(path: Path) -> None:
    assert [problem for command in commands_in(path) if (problem := wrong(command))] == []


def test_the_search_finds_commands_in_messages_docstrings_and_pages(tmp_path: Path) -> None:
    assert "evervec providers add" in commands_in(ROOT / "backend" / "evervec" / "errors.py")
    assert "evervec index {dataset} --full --allow-empty" in commands_in(ROOT / "backend" / "evervec" / "errors.py")
    assert "evervec failed retry message:1" in commands_in(ROOT / "docs" / "cli.md")
    module = tmp_path / "module.py"
    module.write_text('x = f"See `evervec runs {name} --limit 3`, " f"then `evervec\\nstatus`."')
    assert commands_in(module) == ["evervec runs VALUE --limit 3", "evervec status"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("evervec doctor", "no command 'doctor'"),
        ("evervec queue dead bury", "no command 'bury'"),
        ("evervec queue dead list --every", "no option --every"),
        ("evervec index docs --full --allow-nothing", "no option --allow-nothing"),
        ("EVERVEC_HOME=x evervec nonsense --json", "no command 'nonsense'"),
    ],
)
def test_what_does_not_exist_is_told(line: str, what: str) -> None:
    assert what in (wrong(line) or "")
