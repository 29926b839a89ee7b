"""`evervec status`: how much is embedded, what waits, what failed, how the mirrors stand."""

from typing import Any

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json, Project
from evervec.cli.terminal.run import call
from evervec.pipeline.status import overview

STATES = ("rows", "embedded", "pending", "failed", "empty")
WAITS = {"unscored": "wait to be scored", "unextracted": "wait for extraction", "dead": "could not be read"}


def status(dataset: Dataset = None, project: Project = None, as_json: Json = False) -> None:
    """Coverage by dataset and kind, mirrors, extraction, provider and queue."""
    found = call(
        lambda resources: overview.status(resources, dataset=dataset, project=project), queue=True, sends=False
    )
    if as_json:
        output.document(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """The status for people."""
    if not found["datasets"]:
        output.say("Nothing here yet. Start with `evervec demo`, or `evervec ingest telegram result.json`.")
    else:
        output.table(("dataset", "kind", *STATES), _rows(found))
        output.say()
    for one in found["datasets"]:
        output.say(f"{one['project']}/{one['dataset']}: mirror {_mirror(one['mirror'])}")
        waits = [f"{one['knowledge'][name]:,} {what}" for name, what in WAITS.items() if one["knowledge"][name]]
        if waits:
            output.say(f"{one['project']}/{one['dataset']}: {', '.join(waits)}")
    _show_provider(found["provider"])
    _show_batches(found["batches"])
    _show_queue(found)
    if found["failed"] or any(one["knowledge"]["dead"] for one in found["datasets"]):
        output.say("See what failed with `evervec failed list`.", style="yellow")


def _rows(found: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for one in found["datasets"]:
        name = f"{one['project']}/{one['dataset']}"
        kinds = one["kinds"] or {"": one}
        for place, (kind, counts) in enumerate(kinds.items()):
            rows.append(("" if place else name, kind, *(counts[state] for state in STATES)))
    if len(rows) > 1:
        rows.append(("total", "", *(found[state] for state in STATES)))
    return rows


def _mirror(mirror: dict[str, Any]) -> str:
    said = [f"{mirror['state']} ({mirror['vectors']:,})" if mirror["vectors"] else mirror["state"]]
    if mirror["lag_ms"]:
        said.append(f"up to {mirror['lag_ms']:,.0f} ms behind")
    if mirror["checked_at"] is not None:
        at = f"{mirror['checked_at'].astimezone():%H:%M:%S}"
        said.append(f"in sync at {at}" if mirror["in_sync"] else f"not in sync at {at}: see `evervec mirror check`")
    return ", ".join(said)


def _show_provider(provider: dict[str, Any] | None) -> None:
    if provider is None:
        output.say("No provider is active. Add one with `evervec providers add`.", style="yellow")
        return
    output.say(f"Embedding with {provider['name']}: {provider['model']}, {provider['dimensions']} dimensions")
    if provider["reason"]:
        output.say(f"Resting for {provider['paused_seconds']:.0f} s: {provider['reason']}", style="yellow", indent=2)


def _show_batches(lane: dict[str, int]) -> None:
    if lane["jobs"]:
        jobs = "1 batch job holds" if lane["jobs"] == 1 else f"{lane['jobs']:,} batch jobs hold"
        output.say(f"{jobs} {lane['rows']:,} rows: `evervec batch sync` takes in what is done")
    if lane["waiting"]:
        output.say(f"{lane['waiting']:,} rows are kept for a batch job: send them with `evervec batch flush`")


def _show_queue(found: dict[str, Any]) -> None:
    queue = found["queue"]
    if not queue["up"]:
        output.say(f"No doorbell: {queue['reason']}", style="yellow")
        return
    if queue["dead_letters"]:
        output.say(f"{queue['dead_letters']:,} tasks could not be run and were set aside.", style="yellow")
    kept = found["batches"]["rows"] + found["batches"]["waiting"]
    waits = found["pending"] > kept or any(
        one["knowledge"]["unscored"] or one["knowledge"]["unextracted"] for one in found["datasets"]
    )
    if waits and not queue["worker_listens"]:
        output.say("No worker is running: start one with `evervec up` or `evervec worker`.", style="yellow")
