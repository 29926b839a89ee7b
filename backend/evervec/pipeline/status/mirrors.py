"""The state of each mirror, for people and for scripts: from the live process that holds it, else from the file on disk."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.mirror_check import AT_REST
from evervec.store import datasets, mirrors
from evervec.store.database.session import ReadTx
from evervec.store.datasets import DatasetRef
from evervec.store.embeddings import changes
from evervec.store.mirrors import LiveMirror, MeasuredRecall

if TYPE_CHECKING:
    from evervec.mirror.disk.paths import MirrorPaths


@dataclass(frozen=True, kw_only=True)
class MirrorSummary:
    """A mirror in short. `lag_ms` is how long ago its holder last said that it had seen every commit, or 0 while it has.

    Null where no live process has measured.
    """

    state: str
    vectors: int
    lag_ms: float | None = None
    in_sync: bool | None = None
    checked_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class EngineRecall:
    """A recall@10 that was measured on samples against exact answers."""

    recall: float
    target: float
    sampled: int
    measured_at: datetime


@dataclass(frozen=True, kw_only=True)
class EngineRecalls:
    """The newest measured recall of each engine; null where none was measured."""

    mirror: EngineRecall | None = None
    pgvector: EngineRecall | None = None


@dataclass(frozen=True, kw_only=True)
class MirrorProcess:
    """A live process that holds a mirror; `here` tells whether it works in this process's mirror folder."""

    pid: int
    host: str
    folder: str
    state: str
    here: bool


@dataclass(frozen=True, kw_only=True)
class MirrorStatus:
    """Everything that is known of a mirror."""

    project: str
    dataset: str
    state: str
    reason: str
    vectors: int
    bytes_memory: int
    bytes_disk: int
    index: str | None = None
    recall_target: float
    recall: EngineRecalls
    lag_ms: float | None = None
    in_sync: bool | None = None
    checked_at: datetime | None = None
    watermark: str | None = None
    path: str
    holders: list[MirrorProcess]


@dataclass(frozen=True)
class MirrorList:
    """The mirrors of some datasets."""

    datasets: list[MirrorStatus]


async def summaries(resources: Resources, tx: ReadTx, wanted: Sequence[DatasetRef]) -> dict[UUID, MirrorSummary]:
    """Return the mirrors of some datasets in short, by dataset."""
    holders = await _holders(resources, tx, wanted)
    found = {}
    for one in wanted:
        if one.id in holders:
            held = holders[one.id][0]
            found[one.id] = MirrorSummary(
                state=held.state,
                vectors=held.vectors,
                lag_ms=_lag(held),
                in_sync=held.in_sync,
                checked_at=held.checked_at,
            )
        else:
            file = await _on_disk(resources, one)
            found[one.id] = MirrorSummary(state=file.state, vectors=file.vectors)
    return found


async def mirror_status(
    resources: Resources, *, dataset: str | None = None, project: str | None = None
) -> list[MirrorStatus]:
    """Return everything that is known of each mirror. Raises `UnknownDatasetError` and `UnknownProjectError`."""
    async with resources.database.read() as tx:
        wanted = await datasets.find(tx, dataset, project)
        holders = await _holders(resources, tx, wanted)
        return [await _status(resources, tx, one, holders.get(one.id, [])) for one in wanted]


async def _holders(resources: Resources, tx: ReadTx, wanted: Sequence[DatasetRef]) -> dict[UUID, list[LiveMirror]]:
    """Return the live holders by dataset: those of our own folder first, and of these the one that can be searched."""
    me = resources.mirrors.holder
    found: dict[UUID, list[LiveMirror]] = {}
    for held in await mirrors.live(tx, [one.id for one in wanted]):
        found.setdefault(held.dataset_id, []).append(held)
    for listed in found.values():
        listed.sort(key=lambda held: ((held.host, held.folder) != (me.host, me.folder), held.state != "ready"))
    return found


def _lag(held: LiveMirror) -> float:
    return round(held.behind_ms, 3)


def _recall(measured: MeasuredRecall) -> EngineRecall:
    return EngineRecall(
        recall=measured.recall, target=measured.target, sampled=measured.sampled, measured_at=measured.measured_at
    )


async def _status(resources: Resources, tx: ReadTx, one: DatasetRef, holders: Sequence[LiveMirror]) -> MirrorStatus:
    file = await _on_disk(resources, one)
    recalls = {measured.engine: _recall(measured) for measured in await mirrors.recalls(tx, one.id)}
    feed = await changes.feed_state(tx, one.id, one.space_id)
    live = holders[0] if holders else None
    me = resources.mirrors.holder
    return MirrorStatus(
        project=one.project,
        dataset=one.slug,
        state=live.state if live else file.state,
        reason=live.reason if live else file.reason,
        vectors=live.vectors if live else file.vectors,
        bytes_memory=live.bytes if live else 0,
        bytes_disk=file.bytes,
        index=file.index,
        recall_target=(feed.recall_target if feed else None) or resources.settings.mirror_recall,
        recall=EngineRecalls(mirror=recalls.get("mirror"), pgvector=recalls.get("pgvector")),
        lag_ms=_lag(live) if live else None,
        in_sync=live.in_sync if live else None,
        checked_at=live.checked_at if live else None,
        watermark=live.watermark if live else file.watermark,
        path=str(file.path),
        holders=[
            MirrorProcess(
                pid=held.pid,
                host=held.host,
                folder=held.folder,
                state=held.state,
                here=(held.host, held.folder) == (me.host, me.folder),
            )
            for held in holders
        ],
    )


@dataclass(frozen=True)
class _File:
    """What is on disk of a mirror."""

    path: Path
    state: str
    reason: str = ""
    vectors: int = 0
    bytes: int = 0
    index: str | None = None
    watermark: str | None = None


async def _on_disk(resources: Resources, one: DatasetRef) -> _File:
    from evervec.mirror.disk.paths import MirrorPaths

    place = MirrorPaths(resources.settings.mirrors, one.project_id, one.id)
    try:
        exists, aside = await asyncio.to_thread(_look, place)
    except OSError as error:
        return _File(place.bin, "unreadable", f"{place.folder}: {error.strerror}")
    if not exists:
        return _File(place.bin, "set aside" if aside else "absent", aside)
    there = await asyncio.to_thread(lambda: resources.mirrors.folder.describe(one.project_id, one.id))
    if there is None:
        reason = f"{place.bin} does not fit its manifest: `evervec mirror check` sets it aside"
        return _File(place.bin, "unreadable", reason)
    return _File(place.bin, AT_REST, "", there["n"], there["bytes"], there["factory"], there["watermark"])


def _look(place: "MirrorPaths") -> tuple[bool, str]:
    """Return whether there is a file, and if not why the last one was set aside. Raises `OSError`."""
    exists = place.bin.exists()
    quarantined = [file for file in place.files() if file.quarantine_number is not None]
    if exists or not quarantined:
        return exists, ""
    newest = max(file.quarantine_number or 0 for file in quarantined)
    return exists, _reason(place.quarantined("reason", newest))


def _reason(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "its file could not be used"
