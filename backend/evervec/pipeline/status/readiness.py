"""Whether this process can answer, and what is missing around it: for load balancers and orchestrators."""

from dataclasses import dataclass, field

from evervec import log
from evervec.errors import EvervecError, SchemaMismatchError
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import overview
from evervec.store.database import checks

logger = log.get("api")


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be answered.

    `missing` is what stops that, with the reason; `degraded` what does not, such as a queue that is down or no worker that
    listens: rows wait, and searches go on.
    """

    ready: bool
    missing: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)


async def readiness(resources: Resources) -> Readiness:
    """Return whether the database answers with the schema of this version, and what is missing beside it.

    No address and no reason of a server is in it, since nobody needs a key to ask.
    """
    try:
        async with resources.database.read() as tx:
            await checks.schema(tx, resources.database.schema)
        queue = await overview.queue(resources)
    except SchemaMismatchError as error:
        return Readiness(ready=False, missing=[str(error)])
    except EvervecError as error:
        # whoever asks has no key: the address and the reason are for the log alone
        logger.warning("not ready", reason=str(error))
        return Readiness(ready=False, missing=[f"PostgreSQL does not answer ({type(error).__name__})."])
    if not queue.up:
        logger.warning("queue down", reason=queue.reason)
    degraded = [] if queue.up else [f"The queue ({queue.kind}) is down."]
    if queue.up and queue.worker_listens is False:
        degraded.append("No worker listens: new rows wait. Start one with `evervec worker`.")
    return Readiness(ready=True, degraded=degraded)
