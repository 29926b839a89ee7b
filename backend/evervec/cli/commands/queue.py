"""`evervec queue dead`: the tasks that no worker could run, with the reason; run them again, or drop them."""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Json, Limit
from evervec.cli.terminal.run import call
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import dead_letters

if TYPE_CHECKING:
    from evervec.queue.dead_letters import DeadLetter

app = typer.Typer(no_args_is_help=True)
dead = typer.Typer(no_args_is_help=True)
app.add_typer(dead, name="dead")

Seqs = Annotated[
    list[int] | None,
    typer.Argument(metavar="[SEQ]", min=1, help="Their numbers, as `evervec queue dead list` shows."),
]
All = Annotated[bool, typer.Option("--all", metavar="", help="All dead letters that are there now.")]
Change = Callable[[Resources, int], Awaitable[object]]


@app.callback()
def group() -> None:
    """See the tasks that could not be run, and run them again."""


@dead.callback()
def dead_group() -> None:
    """List, requeue or drop dead letters: tasks that no worker could run."""


@dead.command("list")
def list_(k: Limit = 100, as_json: Json = False) -> None:
    """List dead letters, oldest first, with the reason."""
    found = call(lambda resources: dead_letters.listed(resources, k), queue=True, sends=False)
    if as_json:
        output.document({"dead_letters": [_document(letter) for letter in found]})
        return
    for letter in found:
        output.echo(f"{letter.seq}  {letter.task_name}  {letter.at:%Y-%m-%d %H:%M:%S}", style="bold")
        output.echo(letter.reason, indent=2)
        output.echo(output.shorten(_text(letter), taken=2), indent=2, style="dim")
    if found:
        output.info("Run them again with `evervec queue dead requeue`, or remove them with `evervec queue dead drop`.")
    else:
        output.echo("There are no dead letters.")


@dead.command()
def requeue(seqs: Seqs = None, every: All = False, as_json: Json = False) -> None:
    """Send dead letters back to the queue that they came from; a worker runs them again."""
    done = _change(seqs, every, dead_letters.requeue)
    output.document({"requeued": done}) if as_json else output.echo(f"{len(done):,} requeued.")


@dead.command()
def drop(seqs: Seqs = None, every: All = False, as_json: Json = False) -> None:
    """Remove dead letters for good. Rows are safe: the sweep finds those that still wait."""
    done = _change(seqs, every, dead_letters.drop)
    output.document({"dropped": done}) if as_json else output.echo(f"{len(done):,} dropped.")


def _change(seqs: list[int] | None, every: bool, change: Change) -> list[int]:
    """Change each of the dead letters, and return their numbers. If one does not exist, nothing is changed."""
    if every is bool(seqs):
        raise typer.BadParameter("Give the numbers of dead letters, or --all.")

    async def run(resources: Resources) -> list[int]:
        chosen = list(dict.fromkeys(seqs or ()))
        if every:
            chosen = [letter.seq for letter in await dead_letters.listed(resources, sys.maxsize)]
        await dead_letters.require(resources, chosen)
        with output.progress("dead letters", len(chosen)) as step:
            for seq in chosen:
                await change(resources, seq)
                step(1)
        return chosen

    return call(run, queue=True, sends=False)


def _document(letter: "DeadLetter") -> dict[str, Any]:
    return {
        "seq": letter.seq,
        "task_name": letter.task_name,
        "reason": letter.reason,
        "subject": letter.subject,
        "deliveries": letter.deliveries,
        "at": letter.at,
        "body": _text(letter),
    }


def _text(letter: "DeadLetter") -> str:
    return letter.body.decode("utf-8", "replace")
