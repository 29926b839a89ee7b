"""Questions are embedded at once, whatever the budget says, and counted; the counts are written now and then."""

import asyncio
from time import monotonic
from uuid import UUID

from evervec import log
from evervec.domain.protocols import Vectors
from evervec.domain.spending import Reason
from evervec.errors import EvervecError
from evervec.pipeline.budget.allowance import Load
from evervec.pipeline.budget.meter import Meter
from evervec.pipeline.resources import Resources
from evervec.store.budget import ledger
from evervec.store.providers import Provider

logger = log.get("budget")

WRITE_SECONDS = 10.0
"""Seconds of questions that a process which dies leaves out of the ledger."""


async def embed(resources: Resources, provider: Provider, text: str, *, dataset_id: UUID | None = None) -> Vectors:
    """Return the vector of a question, `(1, dim) float32`, and count it. Raises a `ProviderError`."""
    embedder = resources.clients.embedder(provider)
    meter = Meter(resources.database, provider, Reason.QUERY, resources.questions)
    (tokens,) = await asyncio.to_thread(embedder.count_tokens, [text])  # the first call may load a model
    load = Load(1, tokens)
    answer = await meter.send(lambda: embedder.embed_query(text), {dataset_id: load}, whatever=True)
    if monotonic() - resources.questions.begun > WRITE_SECONDS:
        await write(resources)
    return answer


async def write(resources: Resources) -> None:
    """Write what questions took. Where this process may not write, it is logged and left out."""
    taken = resources.questions.take()
    if not taken:
        return
    try:
        await resources.database.with_retries(lambda tx: ledger.add(tx, taken))
    except EvervecError as error:
        logger.info("questions not counted", texts=sum(spent.texts for spent in taken.values()), reason=str(error))
