"""`evervec status`: how much is embedded, what waits, what failed."""

from typing import Any

from evervec.cli import output
from evervec.cli.options import Dataset, Json, Project
from evervec.cli.run import call
from evervec.pipeline import overview

STATES = ("rows", "embedded", "pending", "failed", "empty")


def status(dataset: Dataset = None, project: Project = None, as_json: Json = False) -> None:
    """Coverage by dataset and kind, extraction, provider and queue."""
    found = call(lambda resources: overview.status(resources, dataset=dataset, project=project))
    if as_json:
        output.document(found)
        return
    show(found)


def show(found: dict[str, Any]) -> None:
    """The status for people."""
    rows = []
    for one in found["datasets"]:
        name = f"{one['project']}/{one['dataset']}"
        rows += [(name, kind, *(counts[state] for state in STATES)) for kind, counts in one["kinds"].items()]
    rows.append(("total", "", *(found[state] for state in STATES)))
    output.table(None, ("dataset", "kind", *STATES), rows)
    for one in found["datasets"]:
        waiting = {
            name: one["knowledge"][name] for name in ("unscored", "unextracted", "dead") if one["knowledge"][name]
        }
        if waiting:
            output.say(
                f"{one['project']}/{one['dataset']}: " + ", ".join(f"{n} {count}" for n, count in waiting.items())
            )
    provider = found["provider"]
    if provider is not None:
        output.say(f"embedding with {provider['name']}: {provider['model']}, {provider['dimensions']} dimensions")
        if provider["reason"]:
            output.say(f"  resting for {provider['paused_seconds']} s: {provider['reason']}", style="yellow")
    if not found["queue"]["up"]:
        output.say(f"  no doorbell: {found['queue']['reason']}", style="yellow")
    if found["failed"]:
        output.say(f"{found['failed']} rows were given up on. See them with `evervec failed list`.", style="yellow")
    if not found["datasets"]:
        output.say("Nothing here yet. Start with `evervec demo`, or `evervec ingest telegram result.json`.")
