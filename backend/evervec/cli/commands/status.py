"""`evervec status`: how much is embedded, what waits, what failed, the state of the mirrors."""

from collections.abc import Sequence
from typing import Annotated

import typer

from evervec.cli.render.builds import told
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json, Project
from evervec.cli.terminal.run import call
from evervec.pipeline.attached.report import AttachmentReport
from evervec.pipeline.status import overview
from evervec.pipeline.status.mirrors import MirrorSummary
from evervec.pipeline.status.overview import BatchStatus, DatasetStatus, KnowledgeProgress, Overview, ProviderStatus
from evervec.store.monitor import Coverage, LongText

STATES = ("rows", "embedded", "pending", "failed", "empty")


Truncated = Annotated[
    bool,
    typer.Option(
        "--truncated", metavar="", help="List instead the rows whose text is longer than the model takes: none is cut."
    ),
]


def status(
    dataset: Dataset = None, project: Project = None, truncated: Truncated = False, as_json: Json = False
) -> None:
    """Show coverage by dataset and kind, mirrors, extraction, provider and queue."""
    if truncated:
        _show_long_texts(call(lambda r: overview.long_texts(r.database, dataset=dataset), sends=False), as_json=as_json)
        return
    found = call(
        lambda resources: overview.status(resources, dataset=dataset, project=project), queue=True, sends=False
    )
    if as_json:
        output.document(found)
    else:
        show(found)


def show(found: Overview) -> None:
    """Print the status for people."""
    for problem in found.problems:
        output.echo(str(problem), style="yellow")
    if not found.datasets:
        output.echo("Nothing here yet. Start with `evervec demo`, or `evervec ingest telegram result.json`.")
    else:
        output.table(("dataset", "kind", *STATES), _rows(found))
        output.echo()
    for one in found.datasets:
        output.echo(f"{_name(one)}: mirror {_mirror(one.mirror)}")
        waits = _waits(one.knowledge)
        if waits:
            output.echo(f"{_name(one)}: {', '.join(waits)}")
    for attached in found.attachments:
        _show_attached(attached)
    _show_provider(found.provider)
    for build in found.builds:
        if build.state == "next":
            output.echo(f"{build.project}/{build.dataset}: {told(build)}")
    if found.reuse.reused:
        output.echo(
            f"{found.reuse.share:.0%} of the rows got the vector of an equal text: {found.reuse.reused:,} reused"
        )
    for budget in found.budgets:
        if reason := budget.reason():
            output.echo(reason, style="yellow")
    _show_batches(found.batches)
    _show_queue(found)
    if found.failed or any(one.knowledge.dead for one in found.datasets):
        output.echo("See what failed with `evervec failed list`.", style="yellow")


def _show_long_texts(found: Sequence[LongText], *, as_json: bool) -> None:
    if as_json:
        output.document({"long_texts": found})
        return
    for one in found:
        output.echo(f"{one.kind}:{one.id}  {one.dataset}", style="bold")
        output.echo(one.reason or f"embedded in {one.windows} windows, whose vectors make one", indent=2)
        output.echo(f"“{output.shorten(one.text, taken=4)}”", indent=2, style="dim")
    if not found:
        output.echo("No text is longer than the model takes.")


def _name(one: DatasetStatus) -> str:
    return f"{one.project}/{one.dataset}"


def _waits(knowledge: KnowledgeProgress) -> list[str]:
    counts = {
        "wait to be scored": knowledge.unscored,
        "wait for extraction": knowledge.unextracted,
        "could not be read": knowledge.dead,
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _rows(found: Overview) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for one in found.datasets:
        kinds: dict[str, Coverage | DatasetStatus] = {**one.kinds} or {"": one}
        for place, (kind, counts) in enumerate(kinds.items()):
            rows.append(("" if place else _name(one), kind, *_counts(counts)))
    if len(rows) > 1:
        rows.append(("total", "", *_counts(found)))
    return rows


def _counts(of: Coverage | DatasetStatus | Overview) -> list[int]:
    return [getattr(of, state) for state in STATES]


def _mirror(mirror: MirrorSummary) -> str:
    said = [f"{mirror.state} ({mirror.vectors:,})" if mirror.vectors else mirror.state]
    if mirror.lag_ms:
        said.append(f"up to {mirror.lag_ms:,.0f} ms behind")
    if mirror.checked_at is not None:
        at = f"{mirror.checked_at.astimezone():%H:%M:%S}"
        said.append(f"in sync at {at}" if mirror.in_sync else f"not in sync at {at}: see `evervec mirror check`")
    return ", ".join(said)


def _show_attached(attached: AttachmentReport) -> None:
    rows = f"{attached.rows_taken_in:,} of about {attached.rows_expected:,} rows taken in"
    said = [rows] if attached.state == "taking in" else [attached.state]
    if attached.changes_waiting:
        age = "" if attached.lag_seconds is None else f", the oldest for {attached.lag_seconds:,.1f} s"
        said.append(f"{attached.changes_waiting:,} changes wait{age}")
    if attached.failed:
        said.append(f"{attached.failed:,} rows failed")
    output.echo(f"{attached.table}: {', '.join(said)}")
    for problem in attached.problems:
        output.echo(problem, style="yellow", indent=2)


def _show_provider(provider: ProviderStatus | None) -> None:
    if provider is None:
        output.echo("No provider is active. Add one with `evervec providers add`.", style="yellow")
        return
    output.echo(f"Embedding with {provider.name}: {provider.model}, {provider.dimensions} dimensions")
    if provider.reason:
        pause = "Stopped" if provider.drifted else f"Paused for {provider.paused_seconds:.0f} s"
        output.echo(f"{pause}: {provider.reason}", style="yellow", indent=2)


def _show_batches(batches: BatchStatus) -> None:
    if batches.jobs:
        jobs = "1 batch job holds" if batches.jobs == 1 else f"{batches.jobs:,} batch jobs hold"
        output.echo(f"{jobs} {batches.rows:,} rows: `evervec batch sync` collects the results")
    if batches.waiting:
        output.echo(f"{batches.waiting:,} rows wait for a batch job: send them with `evervec batch flush`")


def _show_queue(found: Overview) -> None:
    queue = found.queue
    if not queue.up:
        output.echo(f"No doorbell: {queue.reason}", style="yellow")
        return
    if queue.dead_letters:
        output.echo(f"{queue.dead_letters:,} tasks could not be run: see `evervec queue dead list`.", style="yellow")
    waits = found.pending > found.batches.rows + found.batches.waiting or found.unread
    if waits and not queue.worker_listens:
        output.echo("No worker is running: start one with `evervec up` or `evervec worker`.", style="yellow")
