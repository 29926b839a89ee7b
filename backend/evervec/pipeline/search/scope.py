"""What a search looks at: which rows of which datasets, and who embeds the question for each of their spaces."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from evervec.domain.conditions import reading
from evervec.domain.conditions.tree import Condition, OneOf
from evervec.errors import ConditionError, Refused
from evervec.store import datasets
from evervec.store.conditions import compiling, fields
from evervec.store.conditions.compiling import CheckedCondition
from evervec.store.database.session import ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.schema.embeddables import BY_NAME, EMBEDDABLES, Embeddable


@dataclass(frozen=True)
class Scope:
    """What to search: kinds, datasets (`everywhere`: these are all that have vectors in their spaces), and the condition that

    a row has to fulfil, or None for every row.
    """

    kinds: Sequence[Embeddable]
    datasets: Sequence[DatasetRef]
    everywhere: bool = False
    condition: CheckedCondition | None = None

    @property
    def space_id(self) -> int:
        """Return the space of the datasets, which have one in common; 0 for none."""
        return self.datasets[0].space_id if self.datasets else 0

    @property
    def dataset_ids(self) -> list[UUID]:
        """Return the ids of the datasets."""
        return [dataset.id for dataset in self.datasets]

    def by_space(self) -> "list[Scope]":
        """Return a scope for each space that the datasets are searched in, in their order."""
        spaces: dict[int, list[DatasetRef]] = {}
        for dataset in self.datasets:
            spaces.setdefault(dataset.space_id, []).append(dataset)
        return [replace(self, datasets=datasets) for datasets in spaces.values()] or [self]

    def without(self, dataset_ids: Collection[UUID]) -> "Scope":
        """Return the scope without some datasets."""
        return replace(self, datasets=[one for one in self.datasets if one.id not in dataset_ids])


@dataclass(frozen=True)
class Within:
    """What a caller limits a search to, in his words; None is no limit.

    `row_ids` are ids of rows of `kind`; `dataset_ids` are datasets by id.
    """

    dataset: str | None = None
    project: str | None = None
    kind: str | None = None
    where: reading.Given | None = None
    row_ids: Sequence[int] | None = None
    dataset_ids: Collection[UUID] | None = None


async def resolve(tx: ReadTx, within: Within) -> Scope:
    """Return the scope. Raises `Refused` for an unknown dataset, project or kind, `ConditionError` for a condition."""
    kinds = _kinds(within)
    found = await datasets.find(tx, within.dataset, within.project)
    everywhere = within.dataset is None and within.project is None and within.dataset_ids is None
    ours = found if within.dataset_ids is None else [one for one in found if one.id in within.dataset_ids]
    condition = _condition(within)
    if condition is None:
        return Scope(kinds, ours, everywhere)
    checked = await check(tx, condition, kinds, ours)
    return Scope(checked.kinds, ours, everywhere, checked)


async def check(
    tx: ReadTx, condition: Condition, kinds: Sequence[Embeddable], within: Sequence[DatasetRef]
) -> CheckedCondition:
    """Return a condition whose fields and values fit the kinds and the attached tables in scope. Raises `ConditionError`."""
    try:
        return compiling.check(condition, kinds, ())
    except ConditionError:
        # fields of attached tables are looked up only where a name is not one of ours
        declared = await fields.declared(tx, [one.id for one in within])
        return compiling.check(condition, kinds, declared)


def _kinds(within: Within) -> list[Embeddable]:
    if within.kind is None:
        if within.row_ids is not None:
            raise Refused(reason=f"Row ids are ids of one kind: say which, one of {', '.join(BY_NAME)}.")
        return list(EMBEDDABLES)
    if within.kind not in BY_NAME:
        raise Refused(reason=f"There is no kind {within.kind!r}. Kinds: {', '.join(BY_NAME)}.")
    return [BY_NAME[within.kind]]


def _condition(within: Within) -> Condition | None:
    condition = None if within.where is None else reading.read(within.where)
    if within.row_ids is None:
        return condition
    # not validated again: they are ids, and may be many
    rows = OneOf.model_construct(op="in", field="id", values=tuple(within.row_ids))
    return rows if condition is None else rows & condition
