"""A group of commands that are listed from a table, each of them imported when it is run."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import typer
from typer._click import Command, Context
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class Listed:
    """A command as the help of its group lists it: where it is defined (`module:name`), its panel and its help."""

    place: str
    panel: str
    help: str

    def load(self, name: str) -> Command:
        """Import the command."""
        module, _, attribute = self.place.partition(":")
        found: Any = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return get_group(found)
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        return get_command(alone)


class Commands(Mapping[str, Command]):
    """The commands of a table by their names; one is imported when it is asked for."""

    def __init__(self, table: Mapping[str, Listed]) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Command:
        """Return the command itself."""
        return self._table[name].load(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the table's order."""
        return iter(self._table)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._table)

    def listed(self, name: str) -> Command | None:
        """Return what the help shows in place of a command; nothing is imported."""
        one = self._table.get(name)
        return None if one is None else TyperCommand(name, help=one.help, rich_help_panel=one.panel)


def lazy_group(table: Mapping[str, Listed]) -> type[TyperGroup]:
    """Return the class of a group that has the commands of a table."""
    commands = Commands(table)

    class LazyGroup(TyperGroup):
        """The group of these commands."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = cast(MutableMapping[str, Command], commands)

        def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
            """Return what stands for a command in the help of the group."""
            return commands.listed(cmd_name)

        def list_commands(self, ctx: Context) -> list[str]:
            """Return the names, in the order in which the help shows them."""
            return list(commands)

        def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
            """Return the command that is run, imported."""
            name, found, rest = super().resolve_command(ctx, args)
            return name, commands[name] if name is not None and found is not None else found, rest

    return LazyGroup
