"""Budgets are set, shown and removed."""

from dataclasses import dataclass
from math import isfinite
from uuid import UUID

from evervec.domain.limits import CEILINGS, LIMITS, PACES, Limits
from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets, providers
from evervec.store.budget import budgets
from evervec.store.budget.budgets import Budget


@dataclass(frozen=True)
class BudgetOwner:
    """Whose budget is meant: a provider by name, or a dataset."""

    provider: str | None = None
    dataset: str | None = None


async def listed(resources: Resources) -> list[Budget]:
    """Return all budgets, with what was used of them."""
    async with resources.database.read() as tx:
        return await budgets.every(tx)


async def set_(resources: Resources, owner: BudgetOwner, limits: Limits, *, without: tuple[str, ...] = ()) -> Budget:
    """Change the given limits of a provider or a dataset, lift those named `without`, and leave the others as they are.

    Raises `Refused` for a limit that can not be held, and for an unknown dataset; `UnknownProviderError`.
    """
    _check(owner, limits, without)
    ids = await _ids(resources, owner)
    async with resources.database.transaction() as tx:
        present = await budgets.of(tx, **ids)
        changed = (present.limits if present else Limits()).changed(limits, without)
        if not changed.given():
            raise Refused(reason=f"No limit is given. Limits: {', '.join(map(option, LIMITS))}.")
        await budgets.set_limits(tx, changed, **ids)
    return await _find(resources, owner)


async def remove(resources: Resources, owner: BudgetOwner) -> None:
    """Remove the budget of a provider or a dataset. Raises `Refused` where there is none."""
    _check(owner, Limits(), ())
    ids = await _ids(resources, owner)
    async with resources.database.transaction() as tx:
        if not await budgets.remove(tx, **ids):
            raise Refused(reason=f"{owner.provider or owner.dataset} has no budget. See `evervec budget list`.")


def option(limit: str) -> str:
    """Return a limit as the command line writes it."""
    return f"--{limit.replace('_', '-')}"


def _check(owner: BudgetOwner, limits: Limits, without: tuple[str, ...]) -> None:
    if (owner.provider is None) == (owner.dataset is None):
        raise Refused(reason="Say whose budget it is: either --provider NAME or --dataset NAME.")
    paces = [name for name in PACES if getattr(limits, name) is not None]
    if owner.dataset is not None and paces:
        raise Refused(reason=f"{option(paces[0])} belongs to a provider, whichever dataset it is sent for.")
    for name, value in limits.given().items():
        if not isfinite(value) or value < (1 if name in PACES else 0) or value > 10**15:
            raise Refused(
                reason=f"{option(name)} {value} can not be held: give a number {'from 1' if name in PACES else 'from 0'} on."
            )
    unknown = [name for name in without if name not in (*PACES, *CEILINGS)]
    if unknown:
        raise Refused(reason=f"There is no limit {unknown[0]!r}. Limits: {', '.join(LIMITS)}.")


async def _ids(resources: Resources, owner: BudgetOwner) -> dict[str, UUID]:
    async with resources.database.read() as tx:
        if owner.provider is not None:
            return {"provider_id": (await providers.by_name(tx, owner.provider)).id}
        found = await datasets.find(tx, owner.dataset)
    if len(found) != 1:
        raise Refused(reason=f"{owner.dataset!r} is not one dataset but {len(found)}: write it as project/name.")
    return {"dataset_id": found[0].id}


async def _find(resources: Resources, owner: BudgetOwner) -> Budget:
    ids = await _ids(resources, owner)
    async with resources.database.read() as tx:
        found = await budgets.of(tx, **ids)
    assert found is not None  # it was just set
    return found
