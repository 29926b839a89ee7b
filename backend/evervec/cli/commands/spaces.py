"""`evervec spaces`: another model, template or size of chunks, built beside the one that is searched."""

from typing import Annotated

import typer

from evervec.cli.render.batch_option import Batch
from evervec.cli.render.builds import time_left
from evervec.cli.render.runs import counted
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json
from evervec.cli.terminal.run import call
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import build as building
from evervec.pipeline.spaces import carry_out, flip, report
from evervec.pipeline.spaces.build import BuildOptions
from evervec.pipeline.spaces.carry_out import Dropped
from evervec.pipeline.spaces.flip import Flipped
from evervec.pipeline.spaces.progress import BuildStatus, builds

app = typer.Typer(no_args_is_help=True)
Provider = Annotated[str, typer.Option("--provider", metavar="NAME", help="Who embeds into the space.")]
Template = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What is embedded for a chunk, if not as the provider's own space has it."),
]
ChunkTokens = Annotated[int | None, typer.Option(metavar="N", help="The most tokens that a chunk may have.")]
Automatic = Annotated[
    bool, typer.Option("--activate", metavar="", help="Search in it by itself, as soon as every row has its vector.")
]
Detach = Annotated[
    bool, typer.Option("--detach", metavar="", help="Leave the work to the workers, and return at once.")
]
AllowMissing = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Rows of a dataset that may be without a vector, and are not found then."),
]
State = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="Only the `next` space, or only the `previous` one.")
]


@app.callback()
def group() -> None:
    """Change models while everything runs: fill another space, search in it, go back, give it up."""


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the spaces, and how many datasets are searched in each."""
    found = call(report.listed)
    if as_json:
        output.document({"spaces": found})
        return
    output.table(
        ("space", "searched", "building", "kept", "model"),
        [
            (
                one.id,
                one.searched,
                one.building,
                one.kept,
                f"{one.provider}/{one.model}, {one.dimensions} dimensions, chunks of {one.chunk_tokens}"
                f"{' (default)' if one.default else ''}",
            )
            for one in found
        ],
    )


@app.command()
def status(dataset: Dataset = None, as_json: Json = False) -> None:
    """Show how far the spaces are that are written to beside those that are searched."""

    async def run(resources: Resources) -> list[BuildStatus]:
        return await builds(resources, dataset=dataset)

    found = call(run)
    if as_json:
        output.document({"builds": found})
        return
    _show(found)


def _show(found: list[BuildStatus]) -> None:
    if not found:
        output.echo("No other space. Build one with `evervec spaces build --provider NAME`.")
        return
    output.table(
        ("dataset", "state", "rows", "embedded", "missing", "left", "space"),
        [
            (
                f"{one.project}/{one.dataset}",
                one.state,
                one.rows,
                one.embedded,
                one.missing,
                time_left(one.seconds_left),
                one.space,
            )
            for one in found
        ],
    )


@app.command()
def plan(
    provider: Provider,
    dataset: Dataset = None,
    template: Template = None,
    chunk_tokens: ChunkTokens = None,
    as_json: Json = False,
) -> None:
    """Tell what a build would embed; change nothing."""
    options = BuildOptions(provider, template_of(template), chunk_tokens)

    async def run(resources: Resources) -> list[report.BuildPlan]:
        return await report.plan(resources, options, dataset=dataset)

    plans = call(run)
    if as_json:
        output.document({"plans": plans})
        return
    if not plans:
        output.echo("Nothing to build: every dataset is in that space already.")
        return
    output.table(
        ("dataset", "rows", "documents", "space"),
        [(f"{one.project}/{one.dataset}", one.rows, one.documents, one.space) for one in plans],
    )


@app.command()
def build(
    provider: Provider,
    dataset: Dataset = None,
    template: Template = None,
    chunk_tokens: ChunkTokens = None,
    activate: Automatic = False,
    batch: Batch = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Fill another space while the present one is searched. Interrupted, it is continued by a worker, or by this command."""
    options = BuildOptions(provider, template_of(template), chunk_tokens, automatic=activate, by_batch=batch)

    async def run(resources: Resources) -> list[BuildStatus]:
        begun = await building.start(resources, options, dataset=dataset)
        if begun:
            output.info(f"{counted(len(begun), 'dataset')} written to another space from now on, too.")
        planned = await builds(resources, dataset=dataset)
        if dataset is not None and not begun and not planned:
            output.info(f"{dataset} is searched in that space already: provider {provider} embeds it from now on.")
        with output.progress("rows", sum(one.missing or one.rows for one in planned)) as step:
            return await carry_out.build(resources, options, dataset=dataset, wait=not detach, progress=step)

    found = call(run)
    output.document({"builds": found}) if as_json else _show(found)
    left = [one for one in found if one.state == "next" and one.missing]
    if left and batch:
        output.info(
            "Send what waits with `evervec batch flush`; until its jobs are done, the present space is searched."
        )
        return
    if left and not detach:
        output.info("What is missing is waiting or failed: see `evervec status` and `evervec failed list`.")
        raise typer.Exit(1)
    if any(one.state == "next" and not one.automatic for one in found) and not detach:
        output.info("Search in it with `evervec spaces activate`.")


@app.command()
def activate(dataset: Dataset = None, allow_missing: AllowMissing = 0, as_json: Json = False) -> None:
    """Search in the next space from now on; the present one is kept for a rollback."""

    async def run(resources: Resources) -> list[Flipped]:
        return await flip.activate(resources, dataset=dataset, allow_missing=allow_missing)

    _told(call(run), as_json)


@app.command()
def rollback(dataset: Dataset = None, allow_missing: AllowMissing = 0, as_json: Json = False) -> None:
    """Search in the former space again; the present one is kept, and can be activated again."""

    async def run(resources: Resources) -> list[Flipped]:
        return await flip.roll_back(resources, dataset=dataset, allow_missing=allow_missing)

    _told(call(run), as_json)


def _told(flipped: list[Flipped], as_json: bool) -> None:
    if as_json:
        output.document({"flipped": flipped})
        return
    for one in flipped:
        output.echo(f"{one.project}/{one.dataset} is searched in {one.space}, before in {one.former}")


@app.command()
def drop(dataset: Dataset = None, state: State = None, as_json: Json = False) -> None:
    """Give up spaces that are not searched, with their vectors and chunks."""

    async def run(resources: Resources) -> Dropped:
        return await carry_out.drop(resources, dataset=dataset, state=state)

    given_up = call(run)
    if as_json:
        output.document(given_up)
    else:
        output.echo(
            f"{counted(given_up.dropped, 'space')} of datasets dropped, {counted(given_up.removed, 'vector')} removed"
        )


def template_of(given: str | None) -> str | None:
    """Return a template with its line breaks, which a shell gives as `\\n`."""
    return None if given is None else given.replace("\\n", "\n")
