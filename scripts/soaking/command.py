"""`scripts/soak`: writes, searches, kills and compares for some minutes, and says whether everything held."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import uvloop

from evervec import log
from scripts.soaking.course import MOMENTS, Outcome, Plan, soak
from scripts.soaking.memory import GROWTH, SLACK_MB


def main(
    minutes: Annotated[float, typer.Option(help="How long rows are written.", min=0.1)] = 10,
    rate: Annotated[float, typer.Option(help="Rows written a second.", min=1)] = 200,
    rows: Annotated[int, typer.Option(help="Rows of both datasets when they have grown.", min=1000)] = 30_000,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Soak the mirrors in random writes on a throw-away stack.

    Exits 1 if a mirror ever differed from the database, a search failed, or memory grew.
    """
    log.configure("ERROR")
    plan = Plan(minutes, rate, rows, seed)
    with tempfile.TemporaryDirectory(prefix="evervec-soak-", ignore_cleanup_errors=True) as folder:
        outcome = uvloop.run(soak(plan, Path(folder), lambda line: typer.echo(line, err=True)))
    if json:
        typer.echo(orjson.dumps(document(plan, outcome), option=orjson.OPT_INDENT_2).decode())
    for line in summary(outcome):
        typer.echo(line, err=True)
    if not outcome.holds:
        raise typer.Exit(1)


def document(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Return the run as one JSON document."""
    return {
        "holds": outcome.holds,
        "failures": outcome.failures,
        "plan": asdict(plan),
        **outcome.facts,
        "memory": asdict(outcome.memory) if outcome.memory else None,
        "moments": outcome.moments,
    }


def summary(outcome: Outcome) -> list[str]:
    """Return the run as text for people."""
    facts, held = outcome.facts, outcome.memory
    lines = [f"FAILED: {failure}" for failure in outcome.failures]
    if "rows_written" in facts:
        lines.append(f"{facts['rows_written']:,} rows written, {facts['rows_a_second']} a second: {facts['written']}")
        lines.append(
            f"{facts['searches']:,} searches; {len(outcome.moments)} comparisons at {MOMENTS} moments and both ends"
        )
    for name in ("worker", "follower"):
        if name in facts:
            told = facts[name]
            lines.append(
                f"{name}: p50 {told.get('p50_ms')} ms, p99 {told.get('p99_ms')} ms, {told.get('engines')}, "
                f"{told['kills']} kills, {told.get('checks')} checks, builds {told.get('builds')}"
            )
    if held is not None:
        lines.append(
            f"memory of the worker: {held.before} MB, later {held.after} MB (may grow by {GROWTH:.0%} and {SLACK_MB:g} MB), "
            f"{held.slope:+} MB a minute, {held.most} MB at most"
        )
    return [*lines, "everything held" if outcome.holds else "NOT everything held"]


if __name__ == "__main__":
    typer.run(main)
