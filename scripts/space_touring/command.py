"""`scripts/space_tour`: changes the model of datasets under load, and says what that cost and whether anything was lost."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop
from pydantic import SecretStr

from evervec import log
from evervec.pipeline.embedding import providers
from evervec.runtime import open_runtime
from evervec.settings import Settings
from evervec.stack.stack import open_stack
from evervec.store.providers import ProviderDraft
from scripts.bench.providers import fake_provider
from scripts.space_touring.tour import Outcome, Plan, tour

FAKE = "fake"


def main(
    model: Annotated[
        str, typer.Option(help="The model that is changed to: minilm, multilingual, or fake, which costs no time.")
    ] = FAKE,
    rows: Annotated[int, typer.Option(help="Rows of all datasets.", min=100)] = 20_000,
    searches: Annotated[float, typer.Option(help="Searches a second.", min=1)] = 50,
    writes: Annotated[float, typer.Option(help="Rows written a second.", min=1)] = 50,
    seconds: Annotated[float, typer.Option(help="How long each state is looked at.", min=1)] = 20,
    datasets: Annotated[int, typer.Option(help="Datasets that the rows are in.", min=1)] = 1,
    changed: Annotated[int, typer.Option(help="Datasets that change their model.", min=1)] = 1,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Build, activate, roll back, activate and drop on a throw-away stack. Exits 1 if a search failed or a row was lost."""
    log.configure("ERROR")
    plan = Plan(model, rows, searches, writes, seconds, datasets, min(changed, datasets))
    with tempfile.TemporaryDirectory(prefix="evervec-spaces-", ignore_cleanup_errors=True) as folder:
        outcome = uvloop.run(_on_a_stack(plan, Path(folder)))
    if json:
        typer.echo(orjson.dumps({"failures": outcome.failures, **outcome.facts}, option=orjson.OPT_INDENT_2).decode())
    for failure in outcome.failures:
        typer.echo(f"FAILED: {failure}", err=True)
    done = f"{outcome.facts['searches']:,.0f} searches, {outcome.facts['writes']:,.0f} writes."
    typer.echo(f"{done} {'' if outcome.failures else 'Everything held.'}", err=True)
    if outcome.failures:
        raise typer.Exit(1)


async def _on_a_stack(plan: Plan, folder: Path) -> Outcome:
    async with open_stack(Settings(home=folder, database_url=None, nats_url=None), nats=False) as stack:
        settings = Settings(
            home=folder / "worker",
            database_url=SecretStr(stack.urls.database_url),
            nats_url=None,
            queue="postgres",
            local_model="wordllama",
            sweep_seconds=1,
        )
        async with _model(plan, settings):
            return await tour(settings, plan, lambda line: typer.echo(line, err=True))


@asynccontextmanager
async def _model(plan: Plan, settings: Settings) -> AsyncIterator[None]:
    """Have the database migrated, with the default provider and that of the plan."""
    if plan.provider != FAKE:
        async with open_runtime(settings, migrate=True) as runtime:
            draft = ProviderDraft(plan.provider, "onnx", model=plan.provider)
            await providers.add(runtime.resources, draft, activate=False)
        yield
        return
    async with fake_provider(dimensions=384) as url:
        async with open_runtime(settings, migrate=True) as runtime:
            draft = ProviderDraft(FAKE, "ollama", base_url=url, model="embedder")
            await providers.add(runtime.resources, draft, activate=False)
        yield


if __name__ == "__main__":
    typer.run(main)
