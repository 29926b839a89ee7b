"""What can be asked of mirrors: are they true, build them anew, how are they. A live process that holds one answers itself."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets, mirrors
from evervec.store.datasets import Dataset
from evervec.store.mirrors import LiveMirror

if TYPE_CHECKING:
    from evervec.pipeline.mirrors.mirror import Mirror

ANSWER_SECONDS = 600.0
ANSWER_POLL_SECONDS = 0.1
AT_REST, FAILED, NO_ANSWER = "at rest", "failed", "no answer"

Step = Callable[[int], object]


@dataclass(frozen=True)
class DatasetCheck:
    """What the check of one dataset's mirror found, before anything was repaired.

    `vectors` are those of the database. `state` and `reason` are those of the mirror as it was found; `repaired` is
    "", "repair" (the difference alone) or "rebuild". `examples` names vector ids of each sort, where this process
    compared. `held_by` is the live process of this folder that has the mirror; without one the file was compared as it
    is. `milliseconds` of a process that had to be asked are those until its answer.
    """

    project: str
    dataset: str
    vectors: int
    missing: int
    extra: int
    stale: int
    milliseconds: float
    state: str
    reason: str = ""
    repaired: str = ""
    examples: dict[str, list[int]] = field(default_factory=dict)
    held_by: int | None = None

    @property
    def in_sync(self) -> bool:
        """Whether the mirror was what the database said."""
        return self.missing + self.extra + self.stale == 0 and self.state not in (FAILED, NO_ANSWER)


@dataclass(frozen=True)
class DatasetBuild:
    """What became of a dataset's mirror. `index` is FAISS's spelling of it; `built` is False where nothing had to be done."""

    project: str
    dataset: str
    vectors: int
    state: str
    reason: str
    index: str | None
    seconds: float
    built: bool = True
    held_by: int | None = None

    @property
    def holds(self) -> bool:
        """Whether a true mirror is there, in the folder too."""
        return self.state in ("ready", AT_REST) and not self.reason


async def check_index_sync(
    resources: Resources,
    *,
    dataset: str | None = None,
    project: str | None = None,
    deep: bool = False,
    repair: bool = True,
    step: Step = lambda _: None,
) -> list[DatasetCheck]:
    """Compare mirrors with the database, and put right what differs unless `repair` is False.

    `deep` compares every number of every vector, not only versions; a process that is asked always does. `step` is
    called for each dataset that is done. Raises `UnknownDatasetError` and `UnknownProjectError`.
    """
    wanted = await _wanted(resources, dataset, project)
    started = perf_counter()
    live = await live_holders(resources, wanted)
    answers = await _ask(resources, live, "check") if repair else {}
    asking = _milliseconds(started)
    found = []
    for one in wanted:
        if one.id in answers:
            found.append(_from_holder(one, answers[one.id], asking))
        else:
            # who was asked and gave no answer is gone, or could not
            beside = None if repair else live.get(one.id)
            found.append(await _checked_here(resources, one, beside, deep=deep, repair=repair))
        step(1)
    return found


async def rebuild_from_database(
    resources: Resources, *, dataset: str | None = None, project: str | None = None, step: Step = lambda _: None
) -> list[DatasetBuild]:
    """Build mirrors anew from the database, whatever is there. Raises as `check_index_sync`."""
    return await _built(resources, dataset, project, "rebuild", step)


async def compact(
    resources: Resources, *, dataset: str | None = None, project: str | None = None, step: Step = lambda _: None
) -> list[DatasetBuild]:
    """Fold what the feed said since into the main segments; a file that lacks nothing stays. Raises as `check_index_sync`."""
    return await _built(resources, dataset, project, "compact", step)


async def live_holders(resources: Resources, wanted: Sequence[Dataset]) -> dict[UUID, list[LiveMirror]]:
    """The live holders of our folder, by dataset."""
    me = resources.mirrors.holder
    found: dict[UUID, list[LiveMirror]] = {}
    async with resources.database.read() as tx:
        for held in await mirrors.live(tx, [one.id for one in wanted]):
            if (held.host, held.folder) == (me.host, me.folder):
                found.setdefault(held.dataset_id, []).append(held)
    return found


async def _wanted(resources: Resources, dataset: str | None, project: str | None) -> list[Dataset]:
    async with resources.database.read() as tx:
        return await datasets.find(tx, dataset, project)


async def _ask(resources: Resources, before: dict[UUID, list[LiveMirror]], what: str) -> dict[UUID, LiveMirror]:
    """Ask who holds these, and wait. Who has gone without an answer is left out; who still has it to give has NO_ANSWER."""
    if not before:
        return {}
    me = resources.mirrors.holder
    async with resources.database.transaction() as tx:
        asked = await mirrors.request(tx, me.host, me.folder, list(before), what)
    if not await _answered(resources):
        return {dataset_id: _silent(before[dataset_id][0]) for dataset_id in asked}
    checked = {(held.dataset_id, held.pid): held.checked_at for listed in before.values() for held in listed}
    answers: dict[UUID, LiveMirror] = {}
    async with resources.database.read() as tx:
        for held in await mirrors.live(tx, asked):
            key = (held.dataset_id, held.pid)
            if (held.host, held.folder) != (me.host, me.folder) or held.checked_at == checked.get(key):
                continue
            worst = answers.get(held.dataset_id)
            if worst is None or _differences(held) > _differences(worst):
                answers[held.dataset_id] = held
    return answers


async def _answered(resources: Resources) -> bool:
    """Wait until nobody of our folder has a question before him; False when that takes too long."""
    me, ending = resources.mirrors.holder, perf_counter() + ANSWER_SECONDS
    while perf_counter() < ending:
        async with resources.database.read() as tx:
            if not await mirrors.open_requests(tx, me.host, me.folder):
                return True
        await asyncio.sleep(ANSWER_POLL_SECONDS)
    return False


def _silent(held: LiveMirror) -> LiveMirror:
    reason = f"process {held.pid} has it and did not answer in {ANSWER_SECONDS:.0f} s: look at its log, or end it"
    return LiveMirror(**{**held.__dict__, "state": NO_ANSWER, "reason": reason})


def _differences(held: LiveMirror) -> int:
    return held.missing + held.extra + held.stale


def _from_holder(one: Dataset, held: LiveMirror, milliseconds: float) -> DatasetCheck:
    return DatasetCheck(
        one.project,
        one.slug,
        held.vectors,
        held.missing,
        held.extra,
        held.stale,
        milliseconds,
        held.state,
        held.reason,
        repaired="repair" if _differences(held) and held.state != NO_ANSWER else "",
        held_by=held.pid,
    )


async def _checked_here(
    resources: Resources, one: Dataset, live: Sequence[LiveMirror] | None, *, deep: bool, repair: bool
) -> DatasetCheck:
    """Compare what is on disk as it is; beside a live holder, as whoever opens it would see it."""
    from evervec.pipeline.mirrors.mirror import NothingToMirrorError

    mirror = resources.mirrors.mirror(one)
    pid = live[0].pid if live else None
    try:
        found = await resources.mirrors.check(one, follow=bool(live), deep=deep, repair=False)
    except NothingToMirrorError as error:
        return DatasetCheck(one.project, one.slug, 0, 0, 0, 0, 0.0, FAILED, str(error), held_by=pid)
    state, reason = _state(mirror), mirror.reason
    repaired = ""
    if repair and (not found.in_sync or mirror.index is None):
        repaired, reason = await _repaired(resources, one, mirror, deep=deep)
    return DatasetCheck(
        one.project,
        one.slug,
        found.vectors,
        found.missing,
        found.extra,
        found.stale,
        found.milliseconds,
        state,
        reason,
        repaired,
        found.examples,
        pid,
    )


async def _repaired(resources: Resources, one: Dataset, mirror: "Mirror", *, deep: bool) -> tuple[str, str]:
    """Put it right and on disk, so that whoever opens it next finds it true; answers how, or "" and why not."""
    was = mirror.index
    found = await resources.mirrors.check(one, follow=False, deep=deep)
    if was is not None and mirror.index is was:  # repaired in memory; of that a file knows nothing
        await resources.mirrors.rebuild(one, "its difference was repaired")
    if mirror.state != "ready" or mirror.reason:
        return "", mirror.reason
    return found.repaired, ""


def _state(mirror: "Mirror") -> str:
    if mirror.index is not None:
        return AT_REST
    return mirror.on_disk if mirror.state != FAILED else FAILED


async def _built(
    resources: Resources, dataset: str | None, project: str | None, what: str, step: Step
) -> list[DatasetBuild]:
    wanted = await _wanted(resources, dataset, project)
    started = perf_counter()
    answers = await _ask(resources, await live_holders(resources, wanted), what)
    asking = round((perf_counter() - started), 3)
    found = []
    for one in wanted:
        held = answers.get(one.id)
        if held is None:
            found.append(await _built_here(resources, one, what))
        else:
            index = await asyncio.to_thread(_factory, resources, one)
            values = (held.vectors, held.state, held.reason, index, asking)
            found.append(DatasetBuild(one.project, one.slug, *values, built=held.state != NO_ANSWER, held_by=held.pid))
        step(1)
    return found


async def _built_here(resources: Resources, one: Dataset, what: str) -> DatasetBuild:
    from evervec.pipeline.mirrors.mirror import NothingToMirrorError

    started = perf_counter()
    mirror = resources.mirrors.mirror(one)
    built = True
    try:
        if what == "compact":
            await mirror.open(build_missing=False)
            built = mirror.index is None or mirror.unsaved > 0
        if built:
            await resources.mirrors.rebuild(one, f"{what} was asked for")
    except NothingToMirrorError as error:
        return DatasetBuild(one.project, one.slug, 0, FAILED, str(error), None, 0.0, built=False)
    except ValueError as error:
        raise Refused(reason=f"The mirror can not be built: {error}. Look at EVERVEC_MIRROR_INDEX.") from error
    index = mirror.index
    factory = None if index is None else index.snapshot.main.factory
    vectors = 0 if index is None else len(index)
    state = mirror.state if mirror.reason else AT_REST
    return DatasetBuild(
        one.project, one.slug, vectors, state, mirror.reason, factory, round(perf_counter() - started, 3), built
    )


def _factory(resources: Resources, one: Dataset) -> str | None:
    there = resources.mirrors.folder.describe(one.project_id, one.id)
    return None if there is None else str(there["factory"])


def _milliseconds(started: float) -> float:
    return round((perf_counter() - started) * 1000, 3)
