"""`evervec adopt`: vectors that a table has already are used, and not paid for again."""

from typing import Annotated

import typer

from evervec.cli.commands import attach
from evervec.cli.render.runs import counted
from evervec.cli.terminal import output
from evervec.cli.terminal.options import DryRun, Json, Project
from evervec.cli.terminal.run import call
from evervec.pipeline.attached import adopt as adopting
from evervec.pipeline.attached import waiting
from evervec.pipeline.attached.adopt import Adopted
from evervec.pipeline.attached.progress import Progress
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import AttachmentDescription, describe
from evervec.store.attached.adoption import Adoption

Column = Annotated[
    str, typer.Option(metavar="NAME", help="The column of the vectors: vector, halfvec, real[] or jsonb.")
]
Model = Annotated[str, typer.Option(metavar="NAME", help="The model that made them; it has to be the active one.")]


def adopt(
    table: attach.Table,
    column: Column,
    model: Model,
    project: Project = None,
    dataset: attach.InDataset = None,
    text: attach.Text = None,
    columns: attach.Columns = None,
    template: attach.Template = None,
    title: attach.Title = None,
    where: attach.Where = None,
    fields: attach.Fields = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Use the vectors that a table has already: check a sample against the model, and embed only the other rows."""
    described = None
    if (text, columns, template) != (None, None, None):
        described = describe(
            table=table,
            project=project or attach.DEFAULT_PROJECT,
            dataset=dataset,
            text=text,
            columns=attach.names(columns),
            template=attach.with_lines(template),
            title=title,
            where=where,
            fields=attach.names(fields),
        )
    done, adoption, progress = call(
        lambda r: _adopt(r, table, column, model, project, described, dry=dry_run), queue=True
    )
    if as_json:
        output.document(vars(done) | {"adoption": adoption})
    else:
        _show(done, adoption)
    if progress is not None and progress.error is not None:
        output.error(progress.error)
        raise typer.Exit(1)


async def _adopt(
    resources: Resources,
    table: str,
    column: str,
    model: str,
    project: str | None,
    described: AttachmentDescription | None,
    *,
    dry: bool,
) -> tuple[Adopted, Adoption | None, Progress | None]:
    done = await adopting.adopt(resources, table, column, model, project=project, described=described, dry=dry)
    if dry or done.id is None:
        return done, None, None
    with output.progress("rows taken in", done.rows or None) as step:
        progress = await waiting.until_taken_in(resources, done.id, step)
    return done, await adopting.state(resources, done.id), progress


def _show(done: Adopted, adoption: Adoption | None) -> None:
    sample, cosine = done.sample, done.sample.cosine
    output.echo(
        f"{done.table}.{done.column}: {done.vectors:,} vectors in {counted(done.rows, 'row')}; "
        f"{counted(sample.compared, 'row')} of {sample.drawn:,} drawn embedded again with {done.model}."
    )
    output.echo(
        f"cosines: min {cosine.min:.4f}, p5 {cosine.p5:.4f}, median {cosine.median:.4f}, max {cosine.max:.4f} "
        f"(p5 of {done.least_cosine} is asked for)",
        indent=2,
    )
    if adoption is None:
        output.echo(
            f"{counted(sample.several, 'row')} of the sample are several chunks or empty, {sample.unusable:,} vectors unusable.",
            indent=2,
        )
        output.info("Nothing was done.")
        return
    output.echo(f"{counted(adoption.adopted, 'vector')} adopted; {adoption.embedded:,} rows had one of ours before.")
    output.echo(
        f"Left to be embedded: {adoption.several:,} of several chunks, {adoption.missing:,} without a vector, "
        f"{adoption.unusable:,} whose vector is unusable, {adoption.changed:,} that changed meanwhile.",
        indent=2,
    )
