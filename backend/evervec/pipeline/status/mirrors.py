"""How each mirror stands, for people and for scripts: from the live process that holds it, else from the file at rest."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from evervec.pipeline.resources import Resources
from evervec.pipeline.upkeep.mirror_check import AT_REST
from evervec.store import changes, datasets, mirrors
from evervec.store.datasets import DatasetRef
from evervec.store.mirrors import LiveMirror
from evervec.store.session import ReadTx

if TYPE_CHECKING:
    from evervec.mirror.disk.paths import MirrorPaths

UNMEASURED = {"lag_ms": None, "in_sync": None, "checked_at": None}


async def in_short(resources: Resources, tx: ReadTx, wanted: Sequence[DatasetRef]) -> dict[UUID, dict[str, Any]]:
    """By dataset: `state`, `vectors`, `lag_ms`, `in_sync` and `checked_at`, None where nobody has measured.

    `lag_ms` is how long ago the holder last said that it had seen everything, or 0 while it has.
    """
    holders = await _holders(resources, tx, wanted)
    found = {}
    for one in wanted:
        if one.id in holders:
            held = holders[one.id][0]
            found[one.id] = {"state": held.state, "vectors": held.vectors, **_measured(held)}
        else:
            state, there = (await _at_rest(resources, one))[:2]
            found[one.id] = {"state": state, "vectors": there.get("n", 0), **UNMEASURED}
    return found


async def mirror_status(
    resources: Resources, *, dataset: str | None = None, project: str | None = None
) -> list[dict[str, Any]]:
    """Everything that is known of each mirror, by dataset. Raises `UnknownDatasetError` and `UnknownProjectError`."""
    async with resources.database.read() as tx:
        wanted = await datasets.find(tx, dataset, project)
        holders = await _holders(resources, tx, wanted)
        return [await _whole(resources, tx, one, holders.get(one.id, [])) for one in wanted]


async def _holders(resources: Resources, tx: ReadTx, wanted: Sequence[DatasetRef]) -> dict[UUID, list[LiveMirror]]:
    """Live holders by dataset: those of our own folder first, and of these the one that can be searched."""
    me = resources.mirrors.holder
    found: dict[UUID, list[LiveMirror]] = {}
    for held in await mirrors.live(tx, [one.id for one in wanted]):
        found.setdefault(held.dataset_id, []).append(held)
    for listed in found.values():
        listed.sort(key=lambda held: ((held.host, held.folder) != (me.host, me.folder), held.state != "ready"))
    return found


def _measured(held: LiveMirror) -> dict[str, Any]:
    return {"lag_ms": round(held.behind_ms, 3), "in_sync": held.in_sync, "checked_at": held.checked_at}


async def _whole(resources: Resources, tx: ReadTx, one: DatasetRef, holders: Sequence[LiveMirror]) -> dict[str, Any]:
    state, there, reason, place = await _at_rest(resources, one)
    heading = await changes.feed_state(tx, one.id)
    target = (heading.recall_target if heading else None) or resources.settings.mirror_recall
    recalls = {recall.engine: recall for recall in await mirrors.recalls(tx, one.id)}
    live = holders[0] if holders else None
    me = resources.mirrors.holder
    return {
        "project": one.project,
        "dataset": one.slug,
        "state": live.state if live else state,
        "reason": live.reason if live else reason,
        "vectors": live.vectors if live else there.get("n", 0),
        "bytes_memory": live.bytes if live else 0,
        "bytes_disk": there.get("bytes", 0),
        "index": there.get("factory"),
        "recall_target": target,
        "recall": {
            engine: _recall(recalls[engine]) if engine in recalls else None for engine in ("mirror", "pgvector")
        },
        **(_measured(live) if live else UNMEASURED),
        "watermark": live.watermark if live else there.get("watermark"),
        "path": str(place.bin),
        "holders": [
            {
                "pid": held.pid,
                "host": held.host,
                "folder": held.folder,
                "state": held.state,
                "here": (held.host, held.folder) == (me.host, me.folder),
            }
            for held in holders
        ],
    }


def _recall(recall: mirrors.MeasuredRecall) -> dict[str, Any]:
    return {name: value for name, value in asdict(recall).items() if name != "engine"}


async def _at_rest(resources: Resources, one: DatasetRef) -> "tuple[str, dict[str, Any], str, MirrorPaths]":
    """State, description, reason and place of what is on disk."""
    from evervec.mirror.disk.paths import MirrorPaths

    place = MirrorPaths(resources.settings.mirrors, one.project_id, one.id)
    try:
        exists, aside = await asyncio.to_thread(_look, place)
    except OSError as error:
        return "unreadable", {}, f"{place.folder}: {error.strerror}", place
    if not exists:
        return ("set aside" if aside else "absent"), {}, aside, place
    there = await asyncio.to_thread(lambda: resources.mirrors.folder.describe(one.project_id, one.id))
    if there is None:
        return "unreadable", {}, f"{place.bin} does not fit its manifest: `evervec mirror check` sets it aside", place
    return AT_REST, there, "", place


def _look(place: "MirrorPaths") -> tuple[bool, str]:
    """Whether there is a file, and else why the last one was set aside. Raises `OSError`."""
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
