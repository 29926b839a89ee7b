"""`scripts/attach_tour`: attaches five tables while a writer is at work, and says whether everything held."""

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop
from pydantic import SecretStr

from evervec import log
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.stack.stack import open_stack
from evervec.store import secrets
from scripts.touring.tour import Outcome, Plan, tour


def main(
    rows: Annotated[int, typer.Option(help="Rows of the five tables.", min=100)] = 20_000,
    rate: Annotated[float, typer.Option(help="Rows written a second.", min=1)] = 200,
    seconds: Annotated[float, typer.Option(help="How long rows are written, twice.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 1,
    url: Annotated[
        str | None, typer.Option(help="Tour tables of this database, empty so far, in place of our own.")
    ] = None,
    capture: Annotated[str, typer.Option(help="How changes are noticed: triggers, poll or logical.")] = "triggers",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Attach, follow and detach on a throw-away stack. Exits 1 if a vector was not that of its row."""
    log.configure("ERROR")
    said = {"capture": capture} | ({} if url is None else {"url": url})
    plan = Plan(rows, rate, seconds, seed, said)
    with tempfile.TemporaryDirectory(prefix="evervec-tour-", ignore_cleanup_errors=True) as folder:
        outcome = uvloop.run(_on_a_stack(plan, Path(folder)))
    if json:
        typer.echo(orjson.dumps({"failures": outcome.failures, **outcome.facts}, option=orjson.OPT_INDENT_2).decode())
    for failure in outcome.failures:
        typer.echo(f"FAILED: {failure}", err=True)
    typer.echo(f"{outcome.facts['written']:,} rows written. {'' if outcome.failures else 'Everything held.'}", err=True)
    if outcome.failures:
        raise typer.Exit(1)


async def _on_a_stack(plan: Plan, folder: Path) -> Outcome:
    async with open_stack(Settings(home=folder, database_url=None, nats_url=None), nats=False) as stack:
        url = stack.urls.database_url
        key = SecretStr(secrets.new_key())
        settings = Settings(
            home=folder / "worker",
            database_url=SecretStr(url),
            nats_url=None,
            secret_key=key,
            attached_compare_seconds=2,
        )
        async with open_runtime(settings, migrate=True):
            pass
        return await tour(url, settings, plan, lambda line: typer.echo(line, err=True))


if __name__ == "__main__":
    typer.run(main)
