"""Documents taken in for a batch job, against the same documents chunked and copied with nothing else; and memory as they come in."""

from itertools import pairwise
from typing import Any

from scripts.bench import deferred_stage
from scripts.bench.deferred_stage import Stage
from scripts.bench.report import Line, at_least, at_most
from scripts.bench.stack import Bench

SHARE = 0.75
"""So much of Python's standard library: about 100,000 chunks."""

DIMENSIONS = 64


async def run(bench: Bench) -> list[Line]:
    """`ingest(mode="async")` in five parts, each in turn with its bare counterpart; then without, for its memory alone."""
    share = str(SHARE / 10 if bench.quick else SHARE)
    async with deferred_stage.open_stage(DIMENSIONS) as stage:
        both = await _told(bench, stage, share)
        alone = await _told(bench, stage, share, "--alone")
    if both["copied"] != both["rows"][-1]:
        raise RuntimeError(f"{both['rows'][-1]} chunks, and {both['copied']} copied bare")
    return [_rate(both), _memory(alone, both)]


async def _told(bench: Bench, stage: Stage, *arguments: str) -> dict[str, Any]:
    """Ingest the documents into an empty database in a process of its own, and return what it printed."""
    async with bench.resources("deferred_ingest") as resources:
        await stage.add(resources, "gemini")
        reported = await stage.run_child(resources, "ingest", *arguments)
    if reported["deferred"] != reported["rows"][-1]:
        raise RuntimeError(f"{reported['rows'][-1]} chunks, {reported['deferred']} of them in the batch lane")
    return reported


def _rate(reported: dict[str, Any]) -> Line:
    rows, ours, bare = reported["rows"][-1], sum(reported["ours"]), sum(reported["bare"])
    ratios = sorted(b / o for o, b in zip(reported["ours"], reported["bare"], strict=True))
    note = f"{reported['documents']:,} documents; by part {ratios[0]:.2f} to {ratios[-1]:.2f}; {reported['chunking']:.1f} of the {bare:.1f} s are chunking"
    name = f"{rows:,} chunks, chunked and copied without triggers and indexes"
    return Line(name, rows / ours, rows / bare, "rows/s", bare / ours, at_least(0.7), note)


def _memory(reported: dict[str, Any], both: dict[str, Any]) -> Line:
    rows, held = reported["rows"], reported["megabytes"]
    note = (
        f"resident; part by part {_grown(held)} MB, peak {reported['peak']:,.0f} MB; "
        f"in the process that copies bare as well {_grown(both['megabytes'])} MB"
    )
    name = f"memory after {rows[-1]:,} chunks, after {rows[0]:,}"
    return Line(name, held[-1], held[0], "MB", held[-1] / held[0], at_most(1.1), note)


def _grown(held: list[float]) -> str:
    return ", ".join(f"{after - before:+.0f}" for before, after in pairwise(held))
