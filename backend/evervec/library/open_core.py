"""What is open of a core, and how it is opened: on the address and settings of a caller, or over resources that are open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from evervec.errors import Refused

if TYPE_CHECKING:
    from evervec.pipeline.ingest.committed import CommitFollower
    from evervec.pipeline.resources import Resources


@dataclass(frozen=True)
class OpenCore:
    """What is open of a core."""

    resources: "Resources"
    follower: "CommitFollower"


@asynccontextmanager
async def opened(
    url: str | None, home: str | PathLike[str] | None, migrate: bool, settings: dict[str, Any]
) -> "AsyncIterator[OpenCore]":
    """Open what the settings name. NATS is used where there is one, and never started."""
    from evervec import log
    from evervec.runtime import open_runtime
    from evervec.settings import Settings
    from evervec.stack.stack import nats_runs

    given: dict[str, Any] = dict(settings)
    if url == "":
        raise Refused(reason="The address of the database is empty. Leave it out for the embedded one.")
    if url is not None:
        given["database_url"] = url
    if home is not None:
        given["home"] = home
    found = Settings(**given)
    log.configure_quietly(found.log_level, as_json=found.log_json)
    async with (
        open_runtime(found, queue=nats_runs(found), migrate=True if migrate else None) as runtime,
        following(runtime.resources) as core,
    ):
        yield core


@asynccontextmanager
async def following(resources: "Resources") -> "AsyncIterator[OpenCore]":
    """Follow the transactions of callers over resources that are open, and stop at the end of the block."""
    from evervec.pipeline.ingest.committed import CommitFollower

    follower = CommitFollower(resources)
    try:
        yield OpenCore(resources, follower)
    finally:
        await follower.aclose()
