"""`evervec attach`, `attachments` and `detach`: tables that are embedded where they are."""

import os
import sys
from typing import Annotated

import typer

from evervec.cli.render.runs import counted, money
from evervec.cli.terminal import output
from evervec.cli.terminal.options import DryRun, Json, Project
from evervec.cli.terminal.run import call
from evervec.pipeline.attached import attach as attaching
from evervec.pipeline.attached import detach as detaching
from evervec.pipeline.attached import report, waiting
from evervec.pipeline.attached.attach import Attached, AttachOptions
from evervec.pipeline.attached.detach import Detached
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.attached.report import AttachmentReport
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import AttachmentDescription, describe
from evervec.sources.sql.loading import expanded

Table = Annotated[str, typer.Argument(metavar="TABLE", help='articles, public.articles or shop."odd.name".')]
InProject = Annotated[str, typer.Option("--project", metavar="NAME", help="The project, made if it is new.")]
DEFAULT_PROJECT = "tables"
Text = Annotated[str | None, typer.Option(metavar="SQL", help="Its text: an expression over its columns.")]
Columns = Annotated[str | None, typer.Option(metavar="A,B", help="Its text: the values of these columns, joined.")]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Its text: this, with {columns} filled in; \\n is a line break, and an empty line goes."
    ),
]
Title = Annotated[str | None, typer.Option(metavar="SQL", help="Its title: a column, or an expression.")]
Where = Annotated[str | None, typer.Option(metavar="SQL", help="Only rows that meet this condition.")]
Fields = Annotated[str | None, typer.Option(metavar="A,B", help="Columns whose values its hits carry.")]
InDataset = Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="The dataset of all its rows.")]
ByColumn = Annotated[
    str | None, typer.Option("--dataset-column", metavar="COLUMN", help="The column that names a row's dataset.")
]
NameOf = Annotated[
    str, typer.Option("--dataset-name", metavar="TEXT", help="The name of such a dataset, with {value} in it.")
]
Url = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="The table's database, if it is not ours; ${NAME} is taken from the environment."
    ),
]
Outbox = Annotated[str, typer.Option(metavar="SCHEMA", help="The schema of our change records in that database.")]
PrintSql = Annotated[
    bool, typer.Option("--print-sql", metavar="", help="Print what an administrator would run there; change nothing.")
]
Forget = Annotated[
    bool,
    typer.Option("--forget", metavar="", help="Do not ask the table's database, which is not ours and may be gone."),
]
Capture = Annotated[str, typer.Option(metavar="HOW", help="How changes are noticed: triggers, poll or logical.")]
PollColumn = Annotated[
    str | None,
    typer.Option(
        "--poll-column", metavar="COLUMN", help="With poll: the time of a row's last change. Without it: xmin."
    ),
]
Key = Annotated[str | None, typer.Option(metavar="A,B", help="With poll: the columns that identify a row of a view.")]
Rate = Annotated[
    float | None, typer.Option("--rows-per-second", metavar="N", min=0.1, help="Take existing rows in no faster.")
]
Newest = Annotated[bool, typer.Option("--newest-first", metavar="", help="Begin with the highest keys.")]
Replace = Annotated[
    bool, typer.Option("--replace", metavar="", help="Change an attachment: read all its rows again in the new way.")
]
Wait = Annotated[
    bool, typer.Option("--wait", metavar="", help="Take existing rows in and embed them here, and return after that.")
]

Done = tuple[Attached, Progress | None, int]


def attach(
    table: Table,
    project: InProject = DEFAULT_PROJECT,
    dataset: InDataset = None,
    dataset_column: ByColumn = None,
    dataset_name: NameOf = "{value}",
    text: Text = None,
    columns: Columns = None,
    template: Template = None,
    title: Title = None,
    where: Where = None,
    fields: Fields = None,
    capture: Capture = "triggers",
    poll_column: PollColumn = None,
    key: Key = None,
    url: Url = None,
    outbox: Outbox = "evervec_outbox",
    print_sql: PrintSql = False,
    newest_first: Newest = False,
    rows_per_second: Rate = None,
    replace: Replace = False,
    wait: Wait = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Embed a table in place: every change of a row is recorded by the transaction that makes it, and taken in."""
    described = describe(
        table=table,
        project=project,
        dataset=dataset,
        dataset_column=dataset_column,
        dataset_name=dataset_name,
        text=text,
        columns=names(columns),
        template=with_lines(template),
        title=title,
        where=where,
        fields=names(fields),
        capture=capture,
        poll_column=poll_column,
        key=names(key),
        url=None if url is None else expanded(url, "--url", os.environ),
        outbox=outbox,
    )
    if print_sql:
        # as it is: output for people is wrapped
        sys.stdout.writelines(f"{one};\n" for one in call(lambda r: attaching.statements(r, described)))
        return
    options = AttachOptions(newest_first, rows_per_second, replace)
    done, progress, embedded = call(
        lambda r: _attach(r, described, options, wait=wait and not dry_run, dry=dry_run), queue=True
    )
    for warning in done.warnings:
        output.info(warning)
    if as_json:
        output.document(vars(done) | ({} if progress is None else {"embedded": embedded} | vars(progress)))
    else:
        _show(done, progress, embedded)
    if progress is not None and progress.error is not None:
        output.error(progress.error)
        raise typer.Exit(1)


async def _attach(
    resources: Resources, described: AttachmentDescription, options: AttachOptions, *, wait: bool, dry: bool
) -> Done:
    done = await attaching.attach(resources, described, options, dry=dry)
    if not wait or done.id is None:
        return done, None, 0
    with output.progress("rows taken in", done.rows or None) as step:
        progress = await waiting.until_taken_in(resources, done.id, step)
    with output.progress("rows embedded") as step:
        embedded = await waiting.embed_all(resources, done.id, step)
    return done, progress, embedded


def with_lines(template: str | None) -> str | None:
    r"""Return a template with its line breaks, which a shell writes as `\n`."""
    return None if template is None else template.replace("\\n", "\n")


def names(listed: str | None) -> tuple[str, ...]:
    """Return the names of a list that is written with commas."""
    return () if listed is None else tuple(one.strip() for one in listed.split(","))


def _show(done: Attached, progress: Progress | None, embedded: int) -> None:
    target = f"{done.project}/{done.dataset or f'({done.dataset_column})'}"
    match done.state:
        case "planned":
            size = f"about {counted(done.rows, 'row')}" if done.rows else "its size is not known before an ANALYZE"
            output.echo(f"{done.table} would be attached to {target}: {size}.")
            output.echo(f"Key {', '.join(done.key)}; changes of {', '.join(done.reads)} count.", indent=2)
            output.info("Nothing was done.")
            return
        case "unchanged":
            output.echo(f"{done.table} is attached to {target} already, in this way.")
        case _:
            output.echo(f"{done.table} is {done.state}: {target}, in {done.seconds:.2f} s.")
            if done.view:
                output.echo(f"From SQL: {done.view}", indent=2)
    if progress is None:
        which = f"about {counted(done.rows, 'row')}" if done.rows else "its rows"
        output.info(f"Workers take {which} in: see `evervec attachments`.")
    else:
        output.echo(f"{counted(progress.taken_in, 'row')} taken in, {embedded:,} embedded here.")


def attachments(project: Project = None, as_json: Json = False) -> None:
    """List attached tables: how far each is, what waits, what failed, what it costs."""
    found = call(lambda r: report.attachments(r, project))
    if as_json:
        output.document({"attachments": found})
        return
    if not found:
        output.echo("No table is attached. Attach one with `evervec attach TABLE --columns A,B --dataset NAME`.")
        return
    output.table(("table", "state", "rows", "pending", "failed", "changes", "dataset"), [_row(one) for one in found])
    for one in found:
        said = _details(one)
        if said:
            output.echo(f"{one.table}: {', '.join(said)}")
        for problem in one.problems:
            output.echo(f"{one.table}: {problem}", style="yellow")


def _row(one: AttachmentReport) -> tuple[object, ...]:
    datasets = one.datasets[0] if len(one.datasets) == 1 else counted(len(one.datasets), "dataset")
    rows = f"{one.documents:,}" if one.state == "following" else f"{one.rows_taken_in:,} of {one.rows_expected:,}"
    return one.table, one.state, rows, one.pending, one.failed, one.changes_waiting, f"{one.project}/{datasets}"


def _details(one: AttachmentReport) -> list[str]:
    """Return speed and rest of what is being taken in, how far it lags behind, and what embedding all of it costs."""
    said = [] if one.where is None else [f"in {one.where}"]
    if one.capture != "triggers":
        said.append(f"by {one.capture}")
    if one.state == "taking in" and one.rows_per_second:
        left = "" if one.remaining_seconds is None else f", about {one.remaining_seconds:,.0f} s left"
        said.append(f"{one.rows_per_second:,.0f} rows/s{left}")
    if one.lag_seconds is not None:
        said.append(f"the oldest change waits for {one.lag_seconds:,.1f} s")
    if one.slot_mb is not None:
        said.append(f"{one.slot_mb:,.0f} MB of the log are kept for its slot")
    if one.next_try is not None:
        said.append(f"tried again at {one.next_try}")
    if one.cost_usd:
        said.append(f"{one.tokens:,} tokens, {money(one.cost_usd)}")
    return said


def detach(
    table: Table, project: Project = None, forget: Forget = False, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Detach a table: leave no trigger, function, document or vector behind. The table itself is not touched."""
    done = call(lambda r: detaching.detach(r, table, project=project, dry=dry_run, forget=forget), queue=True)
    output.document(done) if as_json else _show_detached(done, dry_run)


def _show_detached(done: Detached, dry: bool) -> None:
    what = f"{counted(done.documents, 'document')} of {', '.join(done.datasets) or 'no dataset'}"
    if dry:
        output.echo(f"{done.table} would be detached, and {what} removed.")
        output.info("Nothing was done.")
    else:
        output.echo(f"{done.table} is detached: {what} removed in {done.seconds:.1f} s.")
    if done.left:
        output.info("Its database was not cleaned. Run there:")
        for statement in done.left:
            output.echo(statement, indent=2)
