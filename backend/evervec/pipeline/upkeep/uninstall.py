"""Removal of an installation from its database."""

from dataclasses import dataclass

from evervec.errors import Refused
from evervec.settings import Settings
from evervec.store.attached import attachments
from evervec.store.captures import slots
from evervec.store.database.session import Database
from evervec.store.schema import removal
from evervec.store.schema.removal import Removal


@dataclass(frozen=True)
class Uninstallation:
    """What was removed, or would be; what is left of what Evervec used, and how to remove that."""

    removed: list[str]
    left: list[str]
    dry_run: bool


async def plan(database: Database, settings: Settings, *, force: bool = False) -> Removal:
    """Return what is to be removed.

    Raises `Refused` while something of others depends on it, and, unless with `force`, while Evervec runs.
    """
    async with database.read() as tx:
        running = await removal.sessions(tx)
        made = await attachments.made(tx)
        found = await removal.plan(tx, database.schema, [slots.name_of(one) for one in made.published])
    if found.dependent:
        raise Refused(
            reason=f"Nothing was removed: {', '.join(found.dependent)} would be lost, and Evervec did not make that. "
            "Drop or move it first."
        )
    if running and not force:
        raise Refused(
            reason=f"Nothing was removed: Evervec runs here, as {', '.join(running)}. Stop it first; with --force it fails."
        )
    found.left += [
        f"what was made in another database for table {name}: run `evervec detach` before" for name in made.elsewhere
    ]
    found.left += _outside(settings)
    return found


async def uninstall(database: Database, found: Removal) -> Uninstallation:
    """Remove what was planned, in one transaction."""
    await removal.remove(database, found)
    return Uninstallation(found.objects, found.left, dry_run=False)


def _outside(settings: Settings) -> list[str]:
    """Return what is not in the database."""
    left = [
        f"mirrors in {settings.faiss_dir or settings.home / 'faiss'}, keys and logs in {settings.home}: delete the folders"
    ]
    if settings.queue_kind == "nats":
        stream = settings.stream
        left.append(
            f"streams {stream}… in NATS, where there is one: `nats stream ls` shows them, `nats stream rm` removes them"
        )
    return left
