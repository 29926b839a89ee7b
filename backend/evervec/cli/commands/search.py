"""`evervec search`, `similar` and `duplicates`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json, Kind, Limit, Project
from evervec.cli.terminal.run import call
from evervec.domain.text import snippet
from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import duplicates as duplicating
from evervec.pipeline.search import search as finding
from evervec.pipeline.search.answer import SearchAnswer, SearchExplanation
from evervec.pipeline.search.details import MOST_CONTEXT, Details
from evervec.pipeline.search.duplicates import DuplicatePair
from evervec.sources.files.file_uris import path_of
from evervec.store.embeddings.hits import ChunkPlace, SearchHit, Surroundings
from evervec.store.schema.embeddables import BY_NAME

HOW = {"vector": "by meaning", "words": "by words", "hybrid": "by meaning and words"}
LEAST_PLACE, LEAST_HEADING = 28, 5

Engine = Annotated[str, typer.Option(metavar="ENGINE", help=f"{', '.join(finding.ENGINES)}.")]
Mode = Annotated[
    str,
    typer.Option(
        metavar="MODE", help=f"{', '.join(finding.MODES)}: by meaning, by words, or both, as the question suggests."
    ),
]
Watermark = Annotated[
    int | None,
    typer.Option(
        metavar="XID", min=3, max=2**63 - 1, help="Wait until what this transaction committed is found, at most 5 s."
    ),
]
Rows = Annotated[
    str | None,
    typer.Option(metavar="IDS", help="Only these rows of --kind: 1,2,3, or - for ids on stdin, one a line."),
]
Where = Annotated[
    str | None,
    typer.Option(metavar="CONDITION", help="Only rows that fulfil it: 'author = \"ada\" AND sent_at > 2026-01-01'."),
]
LeastSimilarity = Annotated[
    float | None,
    typer.Option(
        "--least-similarity", metavar="X", min=-1, max=1, help="Only rows of at least this cosine similarity."
    ),
]
ByDocument = Annotated[bool, typer.Option("--by-document", metavar="", help="The best chunk of each document alone.")]
Context = Annotated[
    int, typer.Option(metavar="N", min=0, max=MOST_CONTEXT, help="So many chunks before and after a chunk with it.")
]
Snippets = Annotated[
    bool, typer.Option("--snippets", metavar="", help="The part of each text with the question's words, marked.")
]
Explain = Annotated[
    bool, typer.Option("--explain", metavar="", help="How the answer came about: words, places in each list, times.")
]
Full = Annotated[bool, typer.Option("--full", metavar="", help="Whole texts, one below the other, instead of a table.")]
RowKind = Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join(BY_NAME)}.")]
RowId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The id as `evervec search` prints it.")]


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in your own words.")],
    dataset: Dataset = None,
    project: Project = None,
    kind: Kind = None,
    k: Limit = 10,
    mode: Mode = "auto",
    engine: Engine = "auto",
    where: Where = None,
    min_watermark: Watermark = None,
    rows: Rows = None,
    least_similarity: LeastSimilarity = None,
    by_document: ByDocument = False,
    context: Context = 0,
    snippets: Snippets = False,
    explain: Explain = False,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Find the rows that answer a question best, by its meaning and its words."""

    async def run(resources: Resources) -> SearchAnswer:
        return await finding.search(
            resources,
            text,
            dataset=dataset,
            project=project,
            kind=kind,
            where=where,
            k=k,
            mode=mode,
            engine=engine,
            row_ids=_row_ids(rows),
            min_watermark=min_watermark,
            details=Details(least_similarity, by_document, context, snippets, explain),
        )

    answer = call(run)
    if full and not as_json:
        _show_full(answer)
    else:
        show(answer, as_json)


def _show_full(answer: SearchAnswer) -> None:
    """Print each hit with its whole text, and what stands around it."""
    for hit in answer.hits:
        place = f", {location(hit.place)}" if hit.place else ""
        said = f", {hit.origin.author} in {hit.origin.chat}, {hit.origin.sent_at:%Y-%m-%d %H:%M}" if hit.origin else ""
        output.echo(f"{hit.score:.3f}  {hit.kind} {hit.id}, {hit.dataset}{place}{said}")
        around = hit.around or Surroundings((), ())
        for text in (*around.before, hit.snippet or hit.text, *around.after):
            output.echo(text.rstrip())
        output.echo()
    _tell(answer)


def similar(
    kind: RowKind,
    row_id: RowId,
    dataset: Dataset = None,
    where: Where = None,
    k: Limit = 10,
    engine: Engine = "auto",
    as_json: Json = False,
) -> None:
    """Find rows that say nearly the same as one row."""
    show(call(lambda r: finding.similar(r, kind, row_id, dataset=dataset, where=where, k=k, engine=engine)), as_json)


def duplicates(
    dataset: Dataset = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help=f"{', '.join(BY_NAME)}.")] = "message",
    threshold: Annotated[float, typer.Option(metavar="X", help="The least cosine similarity, up to 1.")] = 0.95,
    k: Limit = 100,
    as_json: Json = False,
) -> None:
    """Find pairs of rows that say the same."""
    pairs = call(lambda r: duplicating.duplicates(r, dataset=dataset, kind=kind, threshold=threshold, k=k))
    if as_json:
        output.document({"pairs": pairs})
    elif pairs:
        output.table(*_pairs(pairs))
    else:
        output.echo(f"No two {kind} rows are {threshold:g} or more alike.")


def show(answer: SearchAnswer, as_json: bool) -> None:
    """Print hits as a document or as a table."""
    if as_json:
        output.document(answer)
        return
    if answer.hits:
        output.table(*_columns(answer.hits))
    else:
        output.echo("Nothing found.")
    _tell(answer)


def _explain(answer: SearchAnswer, explanation: SearchExplanation) -> None:
    """Tell which words were searched, where each hit was in both lists, and how long it took."""
    if explanation.words:
        leading = [(one.word, one.language, one.weight, "yes" if one.leads else "") for one in explanation.words]
        output.table(("word", "language", "weight", "leads to rows"), leading)
        output.echo()
    if any(hit.ranks for hit in answer.hits):
        places = [
            (hit.kind, str(hit.id), _place(hit.ranks.vector), _place(hit.ranks.words))
            for hit in answer.hits
            if hit.ranks
        ]
        output.table(("kind", "id", "place by meaning", "place by words"), places)
        output.echo()
    stages = ", ".join(f"{stage} {milliseconds:.1f} ms" for stage, milliseconds in explanation.stages.items())
    output.echo(f"{', '.join(explanation.kinds)} of {explanation.datasets} datasets: {stages}")


def _place(place: int | None) -> str:
    return "" if place is None else str(place)


def _tell(answer: SearchAnswer) -> None:
    """Tell how the hits were found, and what was not searched."""
    if answer.explanation is not None:
        _explain(answer, answer.explanation)
    wider = ", looking further than usual" if answer.widened else ""
    if answer.merged_by == "rank":
        wider += ", merged by rank: scores of several models can not be compared"
    waiting = f"; {answer.pending_in_scope:,} rows here are not embedded yet" if answer.pending_in_scope else ""
    count = "1 hit" if len(answer.hits) == 1 else f"{len(answer.hits)} hits"
    output.info(
        f"{count} {HOW[answer.mode]} from {answer.engine} at watermark {answer.watermark} in {answer.milliseconds:.1f} ms{wider}{waiting}"
    )
    for problem in answer.unanswered:
        output.error(f"Not searched: {problem}")


def _columns(hits: Sequence[SearchHit]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return the table of some hits, with the places of chunks if there are any."""
    names = ("score", "kind", "id", "dataset", "text")
    rows: list[tuple[object, ...]] = [
        (hit.score, hit.kind, str(hit.id), hit.dataset, hit.snippet or hit.text) for hit in hits
    ]
    if not any(hit.place for hit in hits):
        return names, rows
    places = [location(hit.place) if hit.place else "" for hit in hits]
    return (*names[:4], "place", "text"), [
        (*row[:4], place, hit.snippet or _without_heading(hit))
        for row, place, hit in zip(rows, places, hits, strict=True)
    ]


def _pairs(pairs: Sequence[DuplicatePair]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return the table of some pairs, with the first text of each."""
    rows: list[tuple[object, ...]] = [(one.score, one.kind, str(one.id), str(one.other_id), one.text) for one in pairs]
    if not any(one.place for one in pairs):
        return ("score", "kind", "id", "other id", "text"), rows
    places = [[location(place) if place else "" for place in (one.place, one.other_place)] for one in pairs]
    return ("score", "id", "other id", "place", "other place", "text"), [
        (row[0], *row[2:4], *both, row[4]) for row, both in zip(rows, places, strict=True)
    ]


def _without_heading(hit: SearchHit) -> str:
    """Return the text without the headings above it, where its place ends with the same heading."""
    headings, _, rest = hit.text.partition("\n\n")
    repeated = hit.place is not None and hit.place.heading and headings.endswith(hit.place.heading)
    return rest if repeated and rest else hit.text


def location(place: ChunkPlace) -> str:
    """Return `file:line heading`, cut to a third of a line: from the left of the path, then from the right of the heading.

    A file below the working directory has its path from there, any other its last two names.
    """
    document = place.document
    if document.startswith("file://"):
        path = path_of(document)
        below = path.is_relative_to(Path.cwd())
        document = str(path.relative_to(Path.cwd())) if below else "/".join(path.parts[-2:])
    most = max(LEAST_PLACE, output.out.width // 3)
    spot = f"{document}:{place.line_start}" if place.line_start else document
    spot = spot if len(spot) <= most else "…" + spot[1 - most :]
    room = most - len(spot) - 1
    return f"{spot} {snippet(place.heading, room)}" if place.heading and room >= LEAST_HEADING else spot


def _row_ids(given: str | None) -> list[int] | None:
    """Parse the ids of `--rows`. Raises `Refused` for what is no row id."""
    if given is None:
        return None
    words = sys.stdin.read().split() if given == "-" else given.split(",")
    ids = [int(word) for word in words if word.strip().isascii() and word.strip().isdigit()]
    if len(ids) < len(words) or any(not 0 < row_id < 2**63 for row_id in ids):
        wrong = next((word for word in words if not (word.strip().isascii() and word.strip().isdigit())), given)
        raise Refused(reason=f"--rows: {wrong[:50]!r} is not a row id. Give 1,2,3, or - and one id a line on stdin.")
    return ids
