"""`evervec demo`: the whole product in a minute, on a throw-away stack."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import typer

from evervec import log
from evervec.cli import output, status
from evervec.cli.run import block, settings
from evervec.domain.text import snippet
from evervec.errors import EvervecError
from evervec.pipeline import ingest, overview, proof
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import search
from evervec.runtime import Runtime, open_runtime
from evervec.settings import Settings
from evervec.sources.demo import DEMO_QUESTIONS, demo_chat_path
from evervec.worker.main import work

PATIENCE = 50.0
PROJECT, DATASET = "demo", "team-chat"


def demo() -> None:
    """A team's chat comes in, knowledge is extracted, every row is embedded, questions are answered. Nothing stays."""
    log.configure(settings().log_level)
    home = Path(tempfile.mkdtemp(prefix="evervec-demo-"))
    try:
        if not block(_demo(Settings(home=home, database_url=None, nats_url=None, nats_port=None))):
            raise typer.Exit(1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _demo(throwaway: Settings) -> bool:
    started = monotonic()
    _step("Starting PostgreSQL with pgvector and NATS with JetStream, for this demo only")
    async with open_runtime(throwaway, worker=True) as runtime:
        finish = asyncio.Event()
        working = asyncio.create_task(work(runtime, finish))
        try:
            held = await _show(runtime, working)
        finally:
            finish.set()
            await working
    output.say()
    output.say(
        f"Done in {monotonic() - started:.1f} s; the stack is gone again. Yours: `evervec up`, then", style="bold"
    )
    output.say("  evervec ingest telegram result.json --project mine --dataset chat")
    return held


async def _show(runtime: Runtime, working: "asyncio.Task[None]") -> bool:
    resources = runtime.resources
    _step("A chat export comes in; each message is pending the moment it is committed")
    report = await ingest.import_telegram(resources, demo_chat_path(), PROJECT, DATASET)
    output.say(f"  {report.created} messages, {report.skipped} service messages skipped, {report.rejections} rejected")
    _step("Workers hear the doorbell over NATS: score, extract knowledge, embed")
    found = await _until_done(resources, working)
    await _knowledge(resources)
    _step("Coverage")
    status.show(found)
    for question in DEMO_QUESTIONS:
        await _ask(resources, question.text)
    _step("Proof")
    return await _prove(resources)


async def _until_done(resources: Resources, working: "asyncio.Task[None]") -> dict[str, Any]:
    ends = monotonic() + PATIENCE
    with output.progress("rows waiting") as step:
        while monotonic() < ends:
            found = await overview.status(resources)
            waits = found["pending"] + sum(
                one["knowledge"]["unscored"] + one["knowledge"]["unextracted"] for one in found["datasets"]
            )
            if not waits:
                return found
            if working.done():
                working.result()
            step(0)
            await asyncio.wait({working}, timeout=0.2)
    raise EvervecError(reason=f"{waits} rows still wait after {PATIENCE:.0f} s. EVERVEC_LOG_LEVEL=INFO tells more.")


async def _knowledge(resources: Resources) -> None:
    _step("What was extracted, by rules and embeddings, without any LLM")
    sample = await overview.extracted(resources)
    for name, count, atoms in sample.topics:
        output.say(f"  {name}  ({count} atoms)", style="bold")
        for type_, title, confidence in atoms:
            output.say(f"    {type_:<12} {confidence:.2f}  {snippet(title, 84)}")
    for source, type_, target in sample.links:
        output.say(f"  {snippet(source, 52)}  —{type_}→  {snippet(target, 52)}")


async def _ask(resources: Resources, question: str) -> None:
    answer = await search(resources, question, dataset=DATASET, k=3)
    _step(f"“{question}”")
    for hit in answer.hits:
        output.say(f"  {hit.score:.2f}  {hit.kind:<8} {snippet(hit.text, 96)}")
    output.say(f"        {answer.engine}, {answer.milliseconds:.1f} ms", style="dim")


async def _prove(resources: Resources) -> bool:
    checks: list[Callable[[], Awaitable[proof.Proof]]] = [
        lambda: proof.hnsw_answers(resources, DEMO_QUESTIONS[0].text, "message"),
        lambda: proof.nothing_is_null(resources),
    ]
    held = True
    for check in checks:
        result = await check()
        output.say(f"  {'holds' if result.holds else 'FAILS'}  {result.claim}: {result.seen}")
        held = held and result.holds
    return held


def _step(text: str) -> None:
    output.say()
    output.say(text, style="bold cyan")
