"""`examples/marketplace/run`: the whole example on a throw-away stack; what happens in it is `story`, how it looks is `report`."""

import asyncio
import math
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.run import run_coroutine, settings
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.worker.main import work
from evervec.worker.tasks import attach
from examples.marketplace.report import Report
from examples.marketplace.story import SELLERS, Story
from examples.marketplace.words import TOLD_TODAY

EVERYBODY_ASKS = "parcel arrived damaged"
ASKED_TODAY = {"north": "zip of the tent broke, it rained in", "south": "kettle leaks water"}
PLAIN: dict[str, Any] = {"index_cron": Settings.model_fields["index_cron"].default}
"""The weekly schedule as shipped, and no sweep meanwhile, because what a sweep embeds is in no run's counts."""

Price = Annotated[
    float,
    typer.Option(metavar="USD_PER_MILLION", min=0, help="Dollars per million tokens, to show what it would cost."),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="One JSON document.")]


app = typer.Typer(add_completion=False)


@app.command()
def marketplace(price: Price = 0.02, as_json: Json = False) -> None:
    """Two sellers of a marketplace are indexed, change a little, and are indexed by what changed. Nothing stays."""
    if not math.isfinite(price):
        raise typer.BadParameter(f"--price {price} is no price: give dollars per million tokens.")
    settings()
    home = Path(tempfile.mkdtemp(prefix="evervec-marketplace-"))
    throwaway = Settings(home=home, database_url=None, nats_url=None, nats_port=None, faiss_dir=None, **PLAIN)
    report = Report(price, aloud=not as_json)
    try:
        run_coroutine(_tell(throwaway, report))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if as_json:
        output.document(report.document)


async def _tell(throwaway: Settings, report: Report) -> None:
    async with _opened(throwaway) as story:
        report.opened(await story.open())
        report.step(await story.first_run(), "Both sellers are indexed from nothing")
        report.broken(await story.broken_sync())
        day = await story.a_day()
        report.step(day, "The same day once more: the sync returns its delta, which is indexed by itself")
        report.step(await story.again(day), "The same delta again")
        report.withdrawal(await story.withdrawal())
        report.schedule(await story.schedule())
        for seller in SELLERS:
            report.search(seller, EVERYBODY_ASKS, await story.ask(seller, EVERYBODY_ASKS))
        for seller, question in ASKED_TODAY.items():
            told = TOLD_TODAY[seller][1]
            report.search(seller, question, await story.ask(seller, question), told=told)
    report.table()


@asynccontextmanager
async def _opened(throwaway: Settings) -> AsyncIterator[Story]:
    """Open a stack with a worker in this process, and yield the story to run on it."""
    async with open_runtime(throwaway, worker=True) as runtime:
        attach(runtime.broker, runtime.resources)  # the worker does so too; here it lets tasks be sent from now on
        finish = asyncio.Event()
        working = asyncio.create_task(work(runtime, finish))
        try:
            yield Story(runtime, working)
        finally:
            finish.set()
            await working


if __name__ == "__main__":
    app(prog_name="examples/marketplace/run")
