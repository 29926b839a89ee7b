"""The secret key is rotated: everything that is encrypted in the database is encrypted anew, in one transaction."""

import os
from dataclasses import dataclass
from pathlib import Path

from evervec.domain.endpoint import endpoint_digest
from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.store import breakers, providers, sealed, secrets
from evervec.store.database.session import Database


@dataclass(frozen=True)
class Rotation:
    """How many keys of providers and addresses of sources were encrypted anew."""

    providers: int
    sources: int


async def rotate_secret(resources: Resources) -> Rotation:
    """Rotate the key of this installation: a new one where we keep it in a file ourselves, else the first of the given ones.

    Raises `Refused` where EVERVEC_SECRET_KEY holds no new key.
    """
    settings = resources.settings
    key = None if settings.secret_key is None else settings.secret_key.get_secret_value()
    file = settings.home.expanduser() / secrets.KEY_FILE
    if not settings.embedded_database or key is None or not _holds(file, key):
        return await rotate(resources.database, require_new_key(key))
    # both are in the file while the database changes: whenever this process dies, what is there can be read
    both = key if len(secrets.keys(key)) > 1 else f"{secrets.new_key()},{key}"
    _replace(file, both)
    rotated = await rotate(resources.database, both)
    _replace(file, secrets.keys(both)[0])
    return rotated


def _holds(file: Path, key: str) -> bool:
    return file.is_file() and file.read_text(encoding="ascii") == key


def _replace(file: Path, text: str) -> None:
    beside = file.with_suffix(".new")
    beside.touch(mode=0o600)
    with beside.open("w", encoding="ascii") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)


def require_new_key(key: str | None) -> str:
    """Return `EVERVEC_SECRET_KEY`. Raises `Refused` unless it holds a new key before the old one."""
    if key is None or len(secrets.keys(key)) < 2:
        raise Refused(
            reason="EVERVEC_SECRET_KEY holds no new key. Put one before the old one, as NEW,OLD, for every process, and start "
            f"them again; then run this again, and leave the old one out afterwards. A new key: {secrets.new_key()}"
        )
    return key


async def rotate(database: Database, key: str) -> Rotation:
    """Encrypt with the first of these keys whatever any of them encrypted. Raises `Refused` for what none of them did."""
    async with database.transaction() as tx:
        keyed = [one for one in await providers.every(tx) if one.api_key_encrypted is not None]
        for one in keyed:
            api_key = secrets.unseal(key, one.api_key_encrypted or b"")
            endpoint = endpoint_digest(one.type, one.base_url, one.model, api_key=api_key, secret=secrets.keys(key)[0])
            await sealed.reseal_provider(tx, one.id, sealed=secrets.seal(key, api_key), endpoint=endpoint)
        await breakers.remove_unused(tx)
        count = await sealed.reseal_sources(tx, lambda found: secrets.reseal(key, found))
    return Rotation(len(keyed), count)
