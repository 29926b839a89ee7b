"""`evervec uninstall`: take everything of Evervec out of a database again."""

from typing import Annotated

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import DryRun, Json
from evervec.cli.terminal.run import run_coroutine, settings
from evervec.pipeline.upkeep import uninstall as removing
from evervec.pipeline.upkeep.uninstall import Uninstallation
from evervec.runtime import open_database
from evervec.settings import Settings
from evervec.store.schema.removal import Removal

Yes = Annotated[bool, typer.Option("--yes", metavar="", help="Do it without asking.")]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Do it although workers or others are connected.")]


def uninstall(dry_run: DryRun = False, yes: Yes = False, force: Force = False, as_json: Json = False) -> None:
    """Remove everything that Evervec made in the database, with all texts and vectors, and nothing else."""
    if not (dry_run or yes or (output.err.is_terminal and not as_json)):
        raise typer.BadParameter("Everything of Evervec would be removed: look with --dry-run, then give --yes.")
    found = settings()
    if dry_run:
        planned = run_coroutine(_planned(found, force=True))
        done = Uninstallation(planned.objects, planned.left, dry_run=True)
    else:
        if not yes:
            _ask(run_coroutine(_planned(found, force=force)).objects)
        done = run_coroutine(_done(found, force))
    output.document(done) if as_json else _show(done)


async def _planned(found: Settings, *, force: bool) -> Removal:
    async with open_database(found) as database:
        return await removing.plan(database, found, force=force)


async def _done(found: Settings, force: bool) -> Uninstallation:
    async with open_database(found) as database:
        return await removing.uninstall(database, await removing.plan(database, found, force=force))


def _ask(objects: list[str]) -> None:
    for one in objects:
        output.info(one, indent=2)
    if not typer.confirm("Remove all of this, with every text and vector in it?", err=True):
        raise typer.Exit(1)


def _show(done: Uninstallation) -> None:
    output.echo("Would be removed:" if done.dry_run else "Removed:")
    for one in done.removed:
        output.echo(one, indent=2)
    output.echo("Left:")
    for one in done.left:
        output.echo(one, indent=2)
