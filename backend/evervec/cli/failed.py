"""`evervec failed`: what was given up on, with the reason, and how it gets another chance."""

from dataclasses import asdict
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Dataset, Json, Limit
from evervec.cli.run import call
from evervec.domain.text import snippet
from evervec.errors import Refused
from evervec.pipeline import failures, overview
from evervec.store.embeddables import BY_NAME

app = typer.Typer(no_args_is_help=True)
One = Annotated[
    str | None, typer.Argument(metavar="[KIND:ID]", help="One row, for example message:17; all if not given.")
]


@app.command("list")
def list_(dataset: Dataset = None, k: Limit = 100, as_json: Json = False) -> None:
    """List rows that could not be embedded, and messages that could not be extracted."""
    found = call(lambda r: overview.failed(r, dataset=dataset, most=k))
    if as_json:
        output.document({"failed": [asdict(failure) for failure in found]})
    elif found:
        rows = [(f"{f.kind}:{f.id}", f.dataset, f.code, f.reason, snippet(f.text, 40)) for f in found]
        output.table(None, ("row", "dataset", "code", "reason", "text"), rows)
        output.note("Give them another chance with `evervec failed retry`, or edit their text.")
    else:
        output.say("Nothing failed.")


@app.command()
def retry(one: One = None, dataset: Dataset = None, as_json: Json = False) -> None:
    """Make failed rows pending again."""
    count = call(lambda r: failures.retry(r, dataset=dataset, row=_row(one)))
    output.document({"reopened": count}) if as_json else output.say(f"{count:,} reopened.")


@app.command()
def discard(one: One = None, dataset: Dataset = None, as_json: Json = False) -> None:
    """Leave failed rows alone for good: they count as empty until their text changes."""
    count = call(lambda r: failures.discard(r, dataset=dataset, row=_row(one)))
    output.document({"discarded": count}) if as_json else output.say(f"{count:,} discarded.")


def _row(one: str | None) -> tuple[int, int] | None:
    if one is None:
        return None
    kind, _, number = one.partition(":")
    if kind not in BY_NAME or not number.isdigit():
        raise Refused(reason=f"{one!r} does not name a row. Give KIND:ID, for example message:17.")
    return BY_NAME[kind].kind, int(number)
