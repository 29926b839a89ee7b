"""The commands are listed without being imported, and the list says what they say themselves."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_group

from evervec.cli.app import CARE, COMMANDS, RUN, START, TEXT, app

BACKEND = Path(__file__).parents[2] / "backend"
GROUP = get_group(app)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_listed_command_says_what_the_command_itself_says(name: str) -> None:
    command = GROUP.commands[name]
    assert command.help == COMMANDS[name].help
    assert command.name in (name, "")
    assert COMMANDS[name].panel in (START, TEXT, CARE, RUN)


def test_a_group_brings_its_commands() -> None:
    mirror = GROUP.commands["mirror"]
    assert isinstance(mirror, TyperGroup)
    assert {"check", "rebuild", "status"} <= mirror.commands.keys()
    assert not any("completion" in parameter.name for parameter in mirror.params if parameter.name)


def test_what_is_not_listed_is_not_there() -> None:
    context = typer.Context(GROUP)
    assert GROUP.get_command(context, "nothing") is None
    assert set(GROUP.list_commands(context)) == set(COMMANDS) == set(GROUP.commands)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "evervec", "--version"]
    done = subprocess.run(command, cwd=BACKEND, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("evervec ")
