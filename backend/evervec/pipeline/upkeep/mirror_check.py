"""Check, rebuild and compact mirrors on request. If a live process has the mirror, that process is asked to do it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

from evervec.errors import Refused
from evervec.pipeline.mirrors.registry import Mirrors
from evervec.pipeline.mirrors.relation import NothingToMirrorError
from evervec.pipeline.resources import Resources
from evervec.store import datasets, mirrors
from evervec.store.database.session import Database
from evervec.store.datasets import DatasetRef
from evervec.store.mirrors import LiveMirror
from evervec.store.schema.integrity import TriggerProblem

if TYPE_CHECKING:
    from evervec.pipeline.mirrors.mirror import Mirror

ANSWER_SECONDS = 600.0
ANSWER_POLL_SECONDS = 0.1
AT_REST, FAILED, NO_ANSWER = "at rest", "failed", "no answer"

Step = Callable[[int], object]


@dataclass(frozen=True)
class DatasetCheck:
    """The result of checking one dataset's mirror, before any repair.

    `vectors` counts those of the database. `state` and `reason` describe the mirror as it was found; `repaired` is "",
    "repair" (the difference alone) or "rebuild". `examples` names vector ids of each sort, if this process compared.
    `held_by` is the live process that has the mirror of this folder open; without one the file was compared as it is.
    `milliseconds` includes waiting for the answer of that process.
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
        """Return whether the mirror was equal to the database."""
        return self.missing + self.extra + self.stale == 0 and self.state not in (FAILED, NO_ANSWER)


@dataclass(frozen=True)
class DatasetBuild:
    """The result of building one dataset's mirror. `index` is FAISS's name of its type; `built` is False if it was not needed."""

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
        """Return whether the mirror is up to date, in memory and in the folder."""
        return self.state in ("ready", AT_REST) and not self.reason


@dataclass(frozen=True)
class CheckReport:
    """The checks of some mirrors; `in_sync` when every one was what the database said.

    `problems` tells what is wrong with the triggers that the mirrors rely on.
    """

    in_sync: bool
    datasets: list[DatasetCheck]
    problems: list[TriggerProblem]

    @classmethod
    def of(cls, datasets: list[DatasetCheck], problems: list[TriggerProblem]) -> "CheckReport":
        """Return the report of some checks."""
        return cls(all(one.in_sync for one in datasets), datasets, problems)


@dataclass(frozen=True)
class BuildReport:
    """The builds of some mirrors; `holds` when a true mirror of every dataset is there."""

    holds: bool
    datasets: list[DatasetBuild]

    @classmethod
    def of(cls, datasets: list[DatasetBuild]) -> "BuildReport":
        """Return the report of some builds."""
        return cls(all(one.holds for one in datasets), datasets)


async def check_index_sync(
    resources: Resources,
    *,
    dataset: str | None = None,
    project: str | None = None,
    deep: bool = False,
    repair: bool = True,
    step: Step = lambda _: None,
) -> list[DatasetCheck]:
    """Compare mirrors with the database, and repair what differs unless `repair` is False.

    `deep` compares every number of every vector, not only versions; another process that is asked always does that.
    `step` is called after each dataset. Raises `UnknownDatasetError` and `UnknownProjectError`.
    """
    wanted = await _wanted(resources.database, dataset, project)
    started = perf_counter()
    live = await live_holders(resources.mirrors, wanted)
    answers = await _ask(resources.mirrors, live, "check") if repair else {}
    asking = _milliseconds(started)
    found = []
    for one in wanted:
        if one.id in answers:
            found.append(_from_holder(one, answers[one.id], asking))
        else:
            # a process that was asked and did not answer has ended, or could not do it
            beside = None if repair else live.get(one.id)
            found.append(await _check_here(resources.mirrors, one, beside, deep=deep, repair=repair))
        step(1)
    return found


async def rebuild_from_database(
    resources: Resources, *, dataset: str | None = None, project: str | None = None, step: Step = lambda _: None
) -> list[DatasetBuild]:
    """Build mirrors anew from the database, also where a valid one exists. Raises as `check_index_sync`."""
    return await _build(resources.mirrors, dataset, project, "rebuild", step)


async def compact(
    resources: Resources, *, dataset: str | None = None, project: str | None = None, step: Step = lambda _: None
) -> list[DatasetBuild]:
    """Merge the changes since the last build into the main segments; a file that is up to date stays. Raises as `check_index_sync`."""
    return await _build(resources.mirrors, dataset, project, "compact", step)


async def live_holders(registry: Mirrors, wanted: Sequence[DatasetRef]) -> dict[UUID, list[LiveMirror]]:
    """Return the mirrors that live processes have open from our folder, by dataset."""
    me = registry.holder
    found: dict[UUID, list[LiveMirror]] = {}
    async with registry.database.read() as tx:
        for report in await mirrors.live(tx, [one.id for one in wanted]):
            if (report.host, report.folder) == (me.host, me.folder):
                found.setdefault(report.dataset_id, []).append(report)
    return found


async def _wanted(database: Database, dataset: str | None, project: str | None) -> list[DatasetRef]:
    async with database.read() as tx:
        return await datasets.find(tx, dataset, project)


async def _ask(registry: Mirrors, before: dict[UUID, list[LiveMirror]], what: str) -> dict[UUID, LiveMirror]:
    """Ask the processes that hold these mirrors, and wait. A process that ended is left out; one that is late has NO_ANSWER."""
    if not before:
        return {}
    me = registry.holder
    async with registry.database.transaction() as tx:
        asked = await mirrors.request(tx, me.host, me.folder, list(before), what)
    if not await _wait_for_answers(registry):
        return {dataset_id: _without_answer(before[dataset_id][0]) for dataset_id in asked}
    checked = {(report.dataset_id, report.pid): report.checked_at for listed in before.values() for report in listed}
    answers: dict[UUID, LiveMirror] = {}
    async with registry.database.read() as tx:
        for report in await mirrors.live(tx, asked):
            key = (report.dataset_id, report.pid)
            if (report.host, report.folder) != (me.host, me.folder) or report.checked_at == checked.get(key):
                continue
            worst = answers.get(report.dataset_id)
            if worst is None or _differences(report) > _differences(worst):
                answers[report.dataset_id] = report
    return answers


async def _wait_for_answers(registry: Mirrors) -> bool:
    """Wait until no process of our folder has an open request; return False if that takes too long."""
    me, ending = registry.holder, perf_counter() + ANSWER_SECONDS
    while perf_counter() < ending:
        async with registry.database.read() as tx:
            if not await mirrors.open_requests(tx, me.host, me.folder):
                return True
        await asyncio.sleep(ANSWER_POLL_SECONDS)
    return False


def _without_answer(report: LiveMirror) -> LiveMirror:
    reason = f"process {report.pid} has it and did not answer in {ANSWER_SECONDS:.0f} s: look at its log, or end it"
    return LiveMirror(**{**report.__dict__, "state": NO_ANSWER, "reason": reason})


def _differences(report: LiveMirror) -> int:
    return report.missing + report.extra + report.stale


def _from_holder(one: DatasetRef, report: LiveMirror, milliseconds: float) -> DatasetCheck:
    return DatasetCheck(
        one.project,
        one.slug,
        report.vectors,
        report.missing,
        report.extra,
        report.stale,
        milliseconds,
        report.state,
        report.reason,
        repaired="repair" if _differences(report) and report.state != NO_ANSWER else "",
        held_by=report.pid,
    )


async def _check_here(
    registry: Mirrors, one: DatasetRef, live: Sequence[LiveMirror] | None, *, deep: bool, repair: bool
) -> DatasetCheck:
    """Check the file on disk as it is; if a live process holds the mirror, with the change feed applied."""
    mirror = registry.mirror(one)
    pid = live[0].pid if live else None
    try:
        found = await registry.check(one, follow=bool(live), deep=deep, repair=False)
    except NothingToMirrorError as error:
        return DatasetCheck(one.project, one.slug, 0, 0, 0, 0, 0.0, FAILED, str(error), held_by=pid)
    state, reason = _state(mirror), mirror.reason
    repaired = ""
    if repair and (not found.in_sync or mirror.index is None or reason):
        repaired, reason = await _repair(registry, one, mirror, deep=deep)
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


async def _repair(registry: Mirrors, one: DatasetRef, mirror: "Mirror", *, deep: bool) -> tuple[str, str]:
    """Repair a mirror in memory and on disk; return how, or "" and why not."""
    before = mirror.index
    found = await registry.check(one, follow=False, deep=deep)
    if before is not None and mirror.index is before:  # repaired in memory only: a rebuild writes the file
        await registry.rebuild(one, "its difference was repaired")
    if mirror.state != "ready" or mirror.reason:
        return "", mirror.reason
    return found.repaired, ""


def _state(mirror: "Mirror") -> str:
    if mirror.index is not None:
        return AT_REST
    return mirror.file.state if mirror.state != FAILED else FAILED


async def _build(
    registry: Mirrors, dataset: str | None, project: str | None, what: str, step: Step
) -> list[DatasetBuild]:
    wanted = await _wanted(registry.database, dataset, project)
    started = perf_counter()
    answers = await _ask(registry, await live_holders(registry, wanted), what)
    asking = round((perf_counter() - started), 3)
    found = []
    for one in wanted:
        report = answers.get(one.id)
        if report is None:
            found.append(await _build_here(registry, one, what))
        else:
            index = await asyncio.to_thread(_factory, registry, one)
            values = (report.vectors, report.state, report.reason, index, asking)
            found.append(
                DatasetBuild(one.project, one.slug, *values, built=report.state != NO_ANSWER, held_by=report.pid)
            )
        step(1)
    return found


async def _build_here(registry: Mirrors, one: DatasetRef, what: str) -> DatasetBuild:
    started = perf_counter()
    mirror = registry.mirror(one)
    built = True
    try:
        if what == "compact":
            await mirror.open(build_missing=False)
            built = mirror.index is None or mirror.unsaved > 0
        if built:
            await registry.rebuild(one, f"{what} was asked for")
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


def _factory(registry: Mirrors, one: DatasetRef) -> str | None:
    described = registry.folder.describe(one.project_id, one.id)
    return None if described is None else str(described["factory"])


def _milliseconds(started: float) -> float:
    return round((perf_counter() - started) * 1000, 3)
