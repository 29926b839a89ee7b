"""The plan of a backfill: every row that waits, in the order and the parts that claims would take it."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from evervec.errors import Refused
from evervec.pipeline.budget.planning import SendPlan, plan_rows, together
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.budget import planned_rows
from evervec.store.datasets import DatasetRef
from evervec.store.providers import Provider
from evervec.store.schema.embeddables import BY_NAME


async def plan(resources: Resources, *, dataset: str | None = None, kind: str | None = None) -> SendPlan:
    """Return what a backfill would send. Raises `Refused` for an unknown kind or dataset. Sends and writes nothing."""
    if kind is not None and kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {kind!r}. Kinds: {', '.join(BY_NAME)}.")
    async with resources.database.read() as tx:
        scope = await datasets.find(tx, dataset)
    parts: dict[tuple[UUID, int], tuple[Provider, list[DatasetRef]]] = {}
    for one in scope:
        provider = await resources.provider_of(one)
        parts.setdefault((provider.id, provider.space.id), (provider, []))[1].append(one)
    if not parts:
        parts[UUID(int=0), 0] = await resources.provider(), []
    number = BY_NAME[kind].kind if kind else None
    return together(
        [await plan_rows(resources, provider, _claims(resources, part, number)) for provider, part in parts.values()]
    )


async def _claims(
    resources: Resources, scope: Sequence[DatasetRef], number: int | None
) -> AsyncIterator[Sequence[str]]:
    for one in scope:
        after: int | None = 0
        while after is not None:
            async with resources.database.read() as tx:
                page = await planned_rows.waiting(
                    tx, one.id, after=after, kind=number, limit=resources.settings.embed_batch
                )
            after = page.after
            if page.texts:
                yield page.texts
