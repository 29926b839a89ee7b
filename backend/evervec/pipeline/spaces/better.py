"""Instant first, good soon: what WordLlama made searchable at once is embedded again by a better model of this machine.

Its space is built beside the one that is searched, while the machine has nothing else to do, and searched as soon as it is whole.
"""

import os

from evervec import log
from evervec.domain.vendors import FREE_TYPES, LOCAL, ONNX
from evervec.embedders.catalog import better_local_model
from evervec.pipeline.embedding import providers as adding
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, start
from evervec.store import datasets, providers
from evervec.store.datasets import DatasetRef
from evervec.store.providers import Provider, ProviderDraft
from evervec.store.spaces import spaces

logger = log.get("spaces")

IDLE_LOAD = 0.7
"""Processes that want to run, for each core: above it a build is left for later."""


async def improve(resources: Resources) -> None:
    """Begin to build the space of a better local model for datasets that have none but WordLlama's.

    One that was rolled back or whose build was given up is left alone, and so is every dataset whose provider somebody chose.
    """
    model = better_local_model(resources.settings.local_model)
    if model is None or not _is_idle():
        return
    waiting = await _improvable(resources)
    if not waiting:
        return
    chosen = await provider_of_model(resources, model)
    for one in waiting:
        if one.space_id != chosen.space.id:
            await start(resources, BuildOptions(chosen.name, automatic=True), dataset=one.name)
            logger.info("better model", dataset=one.name, model=chosen.model)


def _is_idle() -> bool:
    return os.getloadavg()[0] < IDLE_LOAD * (os.cpu_count() or 1)


async def _improvable(resources: Resources) -> list[DatasetRef]:
    """Return the datasets that are searched in the default space of WordLlama, have vectors, and no other space."""
    async with resources.database.read() as tx:
        default = await providers.active(tx)
        if default is None or default.type != LOCAL.type:
            return []
        busy = {one.dataset_id for one in await spaces.others(tx)}
        return [
            one
            for one in await datasets.live(tx)
            if one.space_id == default.space.id
            and one.provider_id is None
            and one.id not in busy
            and await spaces.has_vectors(tx, [one.id], one.space_id)
        ]


async def provider_of_model(resources: Resources, model: str) -> Provider:
    """Return the provider of the model on this machine, added if there is none."""
    async with resources.database.read() as tx:
        known = [one for one in await providers.every(tx) if one.type == ONNX.type and one.name == model]
    return (
        known[0] if known else await adding.add(resources, ProviderDraft(model, ONNX.type, model=model), activate=False)
    )


async def told(resources: Resources) -> str:
    """Return which model embeds new datasets, and which better one of this machine is built, or will be, for people."""
    async with resources.database.read() as tx:
        default, others = await providers.active(tx), await spaces.others(tx)
    if default is None:
        return "none yet: add one with `evervec providers add`"
    said = f"{default.model}, on this machine" if default.type in FREE_TYPES else f"{default.model}, of {default.name}"
    better = better_local_model(resources.settings.local_model)
    if any(one.state == spaces.NEXT for one in others):
        return f"{said}; another one is built beside it: see `evervec spaces status`"
    if default.type == LOCAL.type and better is not None:
        return (
            f"{said}; {better}, which answers better, is built beside it when the machine is idle: see "
            "`evervec spaces status`"
        )
    return said
