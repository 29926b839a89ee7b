"""How long a search takes through the pipeline, from the text to the hits with their rows: by meaning, with words, with conditions."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.search.search import search
from evervec.store.datasets import DatasetRef
from scripts.bench import mirror_rows, texts
from scripts.bench.report import Line, at_most
from scripts.bench.stack import Bench, copy_messages, dataset, without_hnsw

SEARCHED = 300_000
ASKED, WARM = 200, 20
HYBRID_MS = 5.0
"""So much longer may a search with words take."""
FILTERS = {
    "50 %": "external_id < '5'",
    "5 %": "external_id < '14' AND external_id > '1'",
    "0.05 %": "external_id < '1001'",
}

How = Mapping[str, Any]


async def run(bench: Bench) -> list[Line]:
    """Ask 300,000 messages of the demo's vocabulary, embedded by the local model and mirrored, in every way in turns."""
    written = texts.messages(bench.rows(SEARCHED))
    async with bench.runtime("latency", queue=True) as runtime:
        resources = runtime.resources
        target = await dataset(resources)
        await without_hnsw(resources)
        await copy_messages(resources, target, written)
        await embed_dataset(resources, target.id)
        async with resources.database.autocommit() as connection:
            await connection.execute("VACUUM ANALYZE")
        async with mirror_rows.following(resources) as mirrors:
            await mirror_rows.ready(mirrors, target)
            return await _measure(resources, target, written)


async def _measure(resources: Resources, target: DatasetRef, written: Sequence[str]) -> list[Line]:
    ways: dict[str, How] = {"vector": {"mode": "vector"}, "hybrid": {"mode": "hybrid"}, "auto": {"mode": "auto"}}
    ways |= {f"filter of {share}": {"mode": "vector", "where": where} for share, where in FILTERS.items()}
    taken = await _taken(partial(search, resources, dataset=target.name), written, ways)
    p50 = {way: float(np.median(times)) for way, times in taken.items()}
    p95 = {way: float(np.percentile(times, 95)) for way, times in taken.items()}
    lines = [
        Line(
            f"{way} p50; vector p50",
            p50[way],
            p50["vector"],
            "ms",
            p50[way] / p50["vector"],
            None,
            f"{len(written):,} rows; p95 {p95[way]:.1f} ms, vector {p95['vector']:.1f} ms",
        )
        for way in ways
        if way != "vector"
    ]
    allowed = p50["vector"] + HYBRID_MS
    return [
        Line(
            f"hybrid p50; vector p50 and {HYBRID_MS:.0f} ms",
            p50["hybrid"],
            allowed,
            "ms",
            p50["hybrid"] / allowed,
            at_most(1.0),
        ),
        *lines,
    ]


async def _taken(ask: Any, written: Sequence[str], ways: Mapping[str, How]) -> dict[str, list[float]]:
    """Ask questions of four to eight words of some message each, every way in turns, and return the milliseconds."""
    chance = random.Random(3)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(WARM + ASKED):
        words = chance.choice(written).split()
        start = chance.randrange(max(1, len(words) - 8))
        question = " ".join(words[start : start + chance.randint(4, 8)])
        for way, how in ways.items():
            started = perf_counter()
            await ask(question, **how)
            if number >= WARM:
                taken[way].append((perf_counter() - started) * 1000)
    return taken
