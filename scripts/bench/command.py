"""`scripts/bench/run`: run the chosen benchmarks and show their results."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from traceback import format_exc
from typing import Annotated

import orjson
import typer
import uvloop

from evervec import log
from scripts.bench import (
    attach,
    deferred_batch,
    deferred_ingest,
    embed_budget,
    embed_pipeline,
    hook_cost,
    import_copy,
    index_delta,
    index_files,
    mirror_check,
    mirror_concurrent,
    mirror_fresh,
    mirror_rebuild,
    mirror_search,
    pending,
    providers,
    quality,
    report,
    rings,
    search_latency,
    search_modes,
    space_build,
    space_flip,
    start,
    vector_wire,
    vector_write,
)
from scripts.bench.report import Findings, Line
from scripts.bench.stack import Bench, open_bench

Run = Callable[[Bench], Awaitable[list[Line]]]

GROUPS: dict[str, dict[str, Run]] = {
    "pipeline": {
        "embed_pipeline": embed_pipeline.run,
        "vector_write": vector_write.run,
        "vector_wire": vector_wire.run,
        "import_copy": import_copy.run,
        "hook_cost": hook_cost.run,
        "pending": pending.run,
        "start": start.run,
    },
    "index": {
        "index_delta": index_delta.run,
        "index_files": index_files.run,
    },
    "search": {
        "mirror_search": mirror_search.run,
        "search_latency": search_latency.run,
    },
    "mirror": {
        "mirror_rebuild": mirror_rebuild.run,
        "mirror_fresh": mirror_fresh.run,
        "mirror_check": mirror_check.run,
        "mirror_concurrent": mirror_concurrent.run,
    },
    "attached": {
        "attach": attach.run,
        "rings": rings.run,
    },
    "providers": {
        "providers": providers.run,
        "embed_budget": embed_budget.run,
    },
    "spaces": {
        "space_flip": space_flip.run,
        "space_build": space_build.run,
    },
    "quality": {
        "quality": quality.run,
        "search_modes": search_modes.run,
    },
    "deferred": {
        "deferred_ingest": deferred_ingest.run,
        "deferred_batch": deferred_batch.run,
    },
}
BENCHMARKS = {name: run for group in GROUPS.values() for name, run in group.items()}

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def main(
    group: Annotated[str | None, typer.Option(help=f"All of one group: {', '.join(GROUPS)}.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(BENCHMARKS)}; may be repeated.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write one JSON document to this file.")] = None,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Write the group's table into docs/benchmarks.md; of a whole group alone."),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the rows: to see that it runs.")] = False,
    rows: Annotated[
        int | None, typer.Option(min=1, help="At most so many rows, whatever a benchmark would take.")
    ] = None,
    questions: Annotated[Path | None, typer.Option(help="The question set of the group quality.")] = None,
    corpus: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="What its questions are about; may be repeated.")
    ] = None,
) -> None:
    """Measure every promise of speed as a ratio within this run. Exits 1 if one was missed."""
    names = _named(group, only)
    asking = [name for name in GROUPS["quality"] if name in names]
    if questions is None and asking:
        if group == "quality" or only:
            raise typer.BadParameter("the group quality needs --questions FILE.")
        names = [name for name in names if name not in asking]
    if markdown and (group is None or only or quick):
        raise typer.BadParameter("a table is of one run: give --markdown with --group, without --only and --quick.")
    log.configure("ERROR")
    findings, facts = uvloop.run(
        _measure(names, quick=quick, most_rows=rows, questions=questions, corpora=_corpora(corpus))
    )
    report.show(findings, facts)
    if json is not None:
        json.write_bytes(orjson.dumps(report.document(findings, facts), option=orjson.OPT_INDENT_2))
    if markdown and group is not None and len(findings) == len(names):
        report.markdown(findings, facts, PAGE, group)
    if not report.held(findings) or len(findings) < len(names):
        raise typer.Exit(1)


def _named(group: str | None, only: list[str] | None) -> list[str]:
    """Return the benchmarks that were asked for."""
    if group is not None and group not in GROUPS:
        raise typer.BadParameter(f"there is no group {group}. Known: {', '.join(GROUPS)}.")
    unknown = set(only or ()) - BENCHMARKS.keys()
    if unknown:
        raise typer.BadParameter(f"there is no {', '.join(sorted(unknown))}. Known: {', '.join(BENCHMARKS)}.")
    return only or list(BENCHMARKS if group is None else GROUPS[group])


def _corpora(given: list[str] | None) -> dict[str, Path]:
    """Return the paths of corpora by their names."""
    pairs = [one.partition("=") for one in given or ()]
    wrong = [name for name, _, path in pairs if not Path(path).exists() or not path]
    if wrong:
        raise typer.BadParameter(f"no path that is there is given for {', '.join(wrong)}: NAME=PATH.")
    return {name: Path(path) for name, _, path in pairs}


async def _measure(
    names: list[str], *, quick: bool, most_rows: int | None, questions: Path | None, corpora: dict[str, Path]
) -> tuple[Findings, dict[str, object]]:
    findings: Findings = {}
    async with open_bench(quick=quick, most_rows=most_rows, questions=questions, corpora=corpora) as bench:
        facts = await bench.facts()
        for name in names:
            typer.echo(f"{name} …", err=True)
            try:
                findings[name] = await BENCHMARKS[name](bench)
            except Exception:  # half an hour of other numbers is not lost for it
                typer.echo(f"{name} failed:\n{format_exc()}", err=True)
    return findings, facts


if __name__ == "__main__":
    typer.run(main)
