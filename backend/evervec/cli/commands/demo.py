"""`evervec demo`: the whole product in a minute, on a throw-away stack."""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import typer

from evervec.cli.commands import status
from evervec.cli.terminal import output
from evervec.cli.terminal.run import run_coroutine, settings
from evervec.embedders.catalog import better_local_model
from evervec.errors import StackError
from evervec.pipeline.ingest import telegram
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import explain
from evervec.pipeline.search.compare import compare
from evervec.pipeline.search.search import search
from evervec.pipeline.spaces import carry_out
from evervec.pipeline.spaces.better import provider_of_model, told
from evervec.pipeline.spaces.build import BuildOptions
from evervec.pipeline.spaces.flip import activate
from evervec.pipeline.status import overview
from evervec.pipeline.upkeep import mirror_check
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings
from evervec.sources.telegram.demo import BETTER_MODEL_QUESTION, DEMO_QUESTIONS, demo_chat_path
from evervec.store.embeddings.hits import SearchHit

PATIENCE = 50.0
HITS = 3
PROJECT, DATASET = "demo", "team-chat"


def demo() -> None:
    """Import a team's chat, extract knowledge, embed every row, answer questions. Nothing stays on the disk."""
    given = settings()
    # its better model is built before the eyes of who looks, and not whenever the machine is idle
    first = "wordllama" if given.local_model == "auto" else given.local_model
    home = Path(tempfile.mkdtemp(prefix="evervec-demo-"))
    try:
        throwaway = Settings(
            home=home, database_url=None, nats_url=None, nats_port=None, faiss_dir=None, local_model=first
        )
        if not run_coroutine(_demo(throwaway, better_local_model(given.local_model))):
            raise typer.Exit(1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _demo(throwaway: Settings, better: str | None) -> bool:
    started = monotonic()
    _step("PostgreSQL with pgvector and NATS with JetStream start, for this demo only")
    async with AsyncExitStack() as closing:
        with output.waiting("starting"):
            runtime = await closing.enter_async_context(open_runtime(throwaway, worker=True))
        finish = asyncio.Event()
        from evervec.worker.main import work

        working = asyncio.create_task(work(runtime, finish))
        try:
            held = await _show(runtime, working)
            if held and better is not None and better != throwaway.local_model:
                await _change_model(runtime.resources, better)
        finally:
            finish.set()
            await working
    _step(f"Done in {monotonic() - started:.1f} s; its servers and its data are removed. With your own text:")
    output.echo("evervec up", indent=2)
    output.echo("evervec ingest telegram result.json --project mine --dataset chat", indent=2)
    return held


async def _show(runtime: Runtime, working: "asyncio.Task[None]") -> bool:
    resources = runtime.resources
    _step("A chat export comes in: each message is pending the moment it is committed")
    report = await telegram.import_telegram(resources, demo_chat_path(), PROJECT, DATASET)
    output.echo(f"{report.created} messages, {report.skipped} service messages skipped", indent=2)
    _step("A worker hears the doorbell over NATS: it scores, extracts and embeds")
    output.echo(f"The model is {await told(resources)}", indent=2)
    await _until_done(resources, working)
    await _knowledge(resources)
    _step("Its mirror in FAISS is built from the database")
    (built,) = await mirror_check.rebuild_from_database(resources, dataset=DATASET)
    output.echo(f"{built.vectors} vectors, {built.index}, {built.seconds:.2f} s", indent=2)
    _step("Coverage")
    status.show(await overview.status(resources))
    same = [await _ask(resources, question.text) for question in DEMO_QUESTIONS]
    _step("Proof")
    return await _prove(resources) and all(same)


async def _until_done(resources: Resources, working: "asyncio.Task[None]") -> None:
    ends = monotonic() + PATIENCE
    with output.waiting("working"):
        while monotonic() < ends:
            found = await overview.status(resources)
            waits = found.pending + found.unread
            if not waits:
                return
            if working.done():
                working.result()
            await asyncio.wait({working}, timeout=0.2)
    raise StackError(reason=f"{waits} rows still wait after {PATIENCE:.0f} s. EVERVEC_LOG_LEVEL=INFO tells more.")


async def _knowledge(resources: Resources) -> None:
    _step("What was extracted, by rules and embeddings, without any LLM")
    sample = await overview.extracted(resources.database)
    for name, count, atoms in sample.topics:
        output.echo(f"{name} ({count} atoms)", style="bold", indent=2)
        for type_, title, confidence in atoms:
            output.echo(f"{type_:<12} {confidence:.2f}  {output.shorten(title, taken=23)}", indent=4)
    for source, type_, target in sample.links:
        output.echo(output.shorten(source, taken=2), indent=2)
        label = f"{type_.replace('_', ' ')} → "
        output.echo(f"{label}{output.shorten(target, taken=4 + len(label))}", indent=4)


async def _ask(resources: Resources, question: str) -> bool:
    """Print the hits of the mirror, and the milliseconds of both engines; return whether pgvector found the same."""
    found = await compare(resources, question, dataset=DATASET, k=2 * HITS)
    _step(f"“{question}”")
    for hit in _unlike(found.mirror):
        output.echo(f"{hit.score:.2f}  {hit.kind:<8} {output.shorten(hit.text, taken=17)}", indent=2)
    hits = "the same hits" if found.same else "OTHER HITS"
    times = f"mirror {found.mirror_ms:.2f} ms, pgvector {found.pgvector_ms:.2f} ms: {hits}"
    output.echo(times, style="dim" if found.same else "red", indent=8)
    return found.same


async def _change_model(resources: Resources, better: str) -> None:
    """Build the space of a better model beside the present one, and ask the same question in both."""
    started, question = monotonic(), BETTER_MODEL_QUESTION.text
    _step(f"The model changes to {better} while everything can be searched")
    before = await search(resources, question, dataset=DATASET, k=1)
    chosen = await provider_of_model(resources, better)
    with output.waiting("embedding again"):
        await carry_out.build(resources, BuildOptions(chosen.name), dataset=DATASET)
    await activate(resources, dataset=DATASET)
    after = await search(resources, question, dataset=DATASET, k=1)
    output.echo(f"“{question}”, {monotonic() - started:.1f} s later:", indent=2)
    for label, found in (("before", before), ("after", after)):
        output.echo(f"{label:<7} {output.shorten(found[0].text, taken=10)}", indent=2)


def _unlike(hits: Sequence[SearchHit]) -> list[SearchHit]:
    """Return the first hits that say something new: an atom often is its message's only sentence."""
    chosen: list[SearchHit] = []
    for hit in hits:
        text = hit.text.casefold()
        if not any(text in other.text.casefold() or other.text.casefold() in text for other in chosen):
            chosen.append(hit)
    return chosen[:HITS]


async def _prove(resources: Resources) -> bool:
    proofs = [
        await explain.explain_index(resources, DEMO_QUESTIONS[0].text, "message"),
        await explain.explain_coverage(resources.database),
        await _mirror_is_true(resources),
    ]
    for one in proofs:
        output.echo(f"{'holds' if one.holds else 'FAILS'}  {one.claim}", indent=2)
        output.echo(one.seen, style="dim" if one.holds else "red", indent=9)
    return all(one.holds for one in proofs)


async def _mirror_is_true(resources: Resources) -> explain.Explanation:
    (found,) = await mirror_check.check_index_sync(resources, dataset=DATASET, deep=True)
    seen = f"{found.missing} missing, {found.extra} extra, {found.stale} stale of {found.vectors:,} vectors"
    return explain.Explanation("the mirror is what the database says", found.in_sync, seen)


def _step(text: str) -> None:
    output.echo()
    output.echo(text, style="bold cyan")
