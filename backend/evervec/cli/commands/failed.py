"""`evervec failed`: rows that were given up, with the reason; try them again, or discard them."""

from typing import Annotated

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json, Limit
from evervec.cli.terminal.run import call
from evervec.pipeline.embedding import failures
from evervec.pipeline.status import overview
from evervec.store.monitor import Failure

app = typer.Typer(no_args_is_help=True)
One = Annotated[
    str | None, typer.Argument(metavar="[KIND:ID]", help="One row, for example message:17; all if not given.")
]


@app.callback()
def group() -> None:
    """See what was given up, and why."""


@app.command("list")
def list_(dataset: Dataset = None, k: Limit = 100, as_json: Json = False) -> None:
    """List rows that could not be embedded, and messages that could not be extracted."""
    found = call(lambda r: overview.failed(r.database, dataset=dataset, most=k))
    if as_json:
        output.document({"failed": found})
        return
    for failure in found:
        _show(failure)
    if found:
        output.info("Edit their text, or try them again with `evervec failed retry`.")
    else:
        output.echo("Nothing failed.")


def _show(failure: Failure) -> None:
    output.echo(f"{failure.kind}:{failure.id}  {failure.dataset}  {failure.code}", style="bold")
    output.echo(failure.reason, indent=2)
    output.echo(f"“{output.shorten(failure.text, taken=4)}”", indent=2, style="dim")


@app.command()
def retry(one: One = None, dataset: Dataset = None, as_json: Json = False) -> None:
    """Make failed rows pending again."""
    count = call(lambda r: failures.retry(r.database, dataset=dataset, one=failures.parse_failure_id(one)))
    output.document({"reopened": count}) if as_json else output.echo(f"{count:,} reopened.")


@app.command()
def discard(one: One = None, dataset: Dataset = None, as_json: Json = False) -> None:
    """Discard failed rows: they count as empty until their text changes."""
    count = call(lambda r: failures.discard(r.database, dataset=dataset, one=failures.parse_failure_id(one)))
    output.document({"discarded": count}) if as_json else output.echo(f"{count:,} discarded.")
