"""`evervec mirror`: check each mirror against the database, show its state, build it anew."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json, Project
from evervec.cli.terminal.run import call
from evervec.pipeline.resources import Resources
from evervec.pipeline.status.mirrors import MirrorList, MirrorStatus, mirror_status
from evervec.pipeline.upkeep import mirror_check
from evervec.pipeline.upkeep.mirror_check import BuildReport, CheckReport, DatasetBuild, DatasetCheck
from evervec.pipeline.upkeep.triggers import trigger_problems

app = typer.Typer(no_args_is_help=True)

Quick = Annotated[
    bool, typer.Option("--quick", metavar="", help="Compare ids and versions alone, not every number of every vector.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Only report; repair nothing.")]
MEBIBYTE = 1 << 20


@app.callback()
def group() -> None:
    """Mirrors: the copies in memory and on disk that hot searches are answered from."""


@app.command()
def check(
    dataset: Dataset = None,
    project: Project = None,
    quick: Quick = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compare mirrors with the database and repair what differs. Exits 1 when anything did, repaired or not."""

    async def run(resources: Resources) -> CheckReport:
        with output.waiting("comparing with the database"):
            checked = await mirror_check.check_index_sync(
                resources, dataset=dataset, project=project, deep=not quick, repair=not dry_run
            )
            return CheckReport.of(checked, await trigger_problems(resources))

    report = call(run)
    if as_json:
        output.document(report)
    else:
        for problem in report.problems:
            output.echo(str(problem), style="yellow")
        _show_checks(report.datasets, dry_run)
    if not report.in_sync or report.problems:
        raise typer.Exit(1)


@app.command()
def rebuild(dataset: Dataset = None, project: Project = None, as_json: Json = False) -> None:
    """Build mirrors anew from the database; the present ones are searched until the new ones are ready."""
    _build(mirror_check.rebuild_from_database, dataset, project, as_json)


@app.command()
def compact(dataset: Dataset = None, project: Project = None, as_json: Json = False) -> None:
    """Fold later changes into the main segments. A process that follows the feed does it by itself when it is worth it."""
    _build(mirror_check.compact, dataset, project, as_json)


@app.command()
def status(dataset: Dataset = None, project: Project = None, as_json: Json = False) -> None:
    """Show each mirror: state and reason, size, index, recall, lag, last check, who holds it."""
    found = call(lambda resources: mirror_status(resources, dataset=dataset, project=project))
    if as_json:
        output.document(MirrorList(found))
        return
    for one in found:
        _show_status(one)
    if not found:
        output.echo("There is no dataset yet. Start with `evervec demo`, or `evervec ingest telegram result.json`.")


def _build(
    make: Callable[..., Awaitable[list[DatasetBuild]]], dataset: str | None, project: str | None, as_json: bool
) -> None:
    async def run(resources: Resources) -> list[DatasetBuild]:
        with output.progress("mirrors") as step:
            return await make(resources, dataset=dataset, project=project, step=step)

    found = call(run)
    report = BuildReport.of(found)
    if as_json:
        output.document(report)
    else:
        rows = [(_name(one), one.vectors, one.state, one.index or "", one.seconds, _about_build(one)) for one in found]
        output.table(("dataset", "vectors", "state", "index", "seconds", ""), rows)
    for one in found:
        if not one.holds:
            output.error(f"{_name(one)}: {one.reason or one.state}")
    if not report.holds:
        raise typer.Exit(1)


def _name(one: DatasetCheck | DatasetBuild) -> str:
    return f"{one.project}/{one.dataset}"


def _about_build(one: DatasetBuild) -> str:
    if one.reason:
        return "see below"
    held = f"by process {one.held_by}" if one.held_by else ""
    return held if one.built else "nothing to do"


def _show_checks(found: Sequence[DatasetCheck], dry_run: bool) -> None:
    if not found:
        output.echo("There is no dataset yet, so no mirror that could be wrong.")
        return
    rows = [
        (_name(one), one.vectors, one.missing, one.extra, one.stale, f"{one.milliseconds:,.1f}", _about_check(one))
        for one in found
    ]
    output.table(("dataset", "vectors", "missing", "extra", "stale", "ms", "mirror"), rows)
    for one in found:
        for sort, ids in one.examples.items():
            count = getattr(one, sort)
            more = f" and {count - len(ids):,} more" if count > len(ids) else ""
            output.echo(f"{_name(one)}: {sort} vectors {', '.join(map(str, ids))}{more}")
    output.echo()
    output.echo(_verdict(found, dry_run))


def _about_check(one: DatasetCheck) -> str:
    said = [one.state if one.held_by is None else f"{one.state}, held by process {one.held_by}"]
    said += [one.reason] if one.reason else []
    said += [{"repair": "repaired", "rebuild": "built anew"}[one.repaired]] if one.repaired else []
    return "; ".join(said)


def _verdict(found: Sequence[DatasetCheck], dry_run: bool) -> str:
    wrong = [one for one in found if not one.in_sync]
    if not wrong:
        return "In sync: every mirror is what the database says."
    what = "1 mirror was" if len(wrong) == 1 else f"{len(wrong)} mirrors were"
    if dry_run:
        return f"{what} not in sync. Nothing was changed: without --dry-run it is repaired."
    if all(one.repaired for one in wrong):
        return f"{what} not in sync, and repaired."
    return f"{what} not in sync, and not all of it could be repaired: see the reasons above."


def _show_status(one: MirrorStatus) -> None:
    output.echo(f"{one.project}/{one.dataset}", style="bold")
    for name, value in _lines(one):
        output.echo(f"{name:<9} {value}", indent=2)


def _lines(one: MirrorStatus) -> list[tuple[str, str]]:
    state = f"{one.state}: {one.reason}" if one.reason else one.state
    memory, disk = one.bytes_memory / MEBIBYTE, one.bytes_disk / MEBIBYTE
    held = ", ".join(f"{h.pid} on {'this machine' if h.here else h.host}" for h in one.holders)
    return [
        ("state", state),
        ("vectors", f"{one.vectors:,}, {memory:,.1f} MB in memory, {disk:,.1f} MB on disk"),
        ("index", one.index or "none on disk"),
        ("recall@10", _recall(one)),
        ("feed", _feed(one)),
        ("check", _checked(one)),
        ("held by", held or "no live process"),
        ("file", one.path),
    ]


def _recall(one: MirrorStatus) -> str:
    said = [f"target {one.recall_target:g}"]
    for engine, measured in (("mirror", one.recall.mirror), ("pgvector", one.recall.pgvector)):
        if measured is None:
            said.append(f"{engine} not measured yet")
        else:
            said.append(f"{engine} {measured.recall:.3f} ({measured.measured_at.astimezone():%Y-%m-%d %H:%M})")
    return ", ".join(said)


def _feed(one: MirrorStatus) -> str:
    if one.watermark is None:
        return "not read yet"
    late = f"{one.lag_ms:,.0f} ms behind" if one.lag_ms else "has seen every commit"
    return f"{'nobody follows' if one.lag_ms is None else late}, watermark {one.watermark}"


def _checked(one: MirrorStatus) -> str:
    """Return when a mirror was last checked, and the result."""
    if one.checked_at is None:
        return (
            "not checked since it was opened"
            if one.state not in ("absent", mirror_check.AT_REST)
            else "none by a live process"
        )
    at = f"{one.checked_at.astimezone():%Y-%m-%d %H:%M}"
    return f"in sync at {at}" if one.in_sync else f"not in sync at {at}"
