"""`evervec search`, `similar` and `duplicates`."""

from dataclasses import asdict
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Dataset, Json, Kind, Limit, Project
from evervec.cli.run import call
from evervec.domain.text import snippet
from evervec.pipeline import search as finding
from evervec.pipeline.search import Answer

Engine = Annotated[str, typer.Option(help=f"{', '.join(finding.ENGINES)}.")]


def search(
    text: str,
    dataset: Dataset = None,
    project: Project = None,
    kind: Kind = None,
    k: Limit = 10,
    engine: Engine = "auto",
    as_json: Json = False,
) -> None:
    """Find the rows nearest in meaning to a text."""
    answer = call(lambda r: finding.search(r, text, dataset=dataset, project=project, kind=kind, k=k, engine=engine))
    show(answer, as_json)


def similar(
    kind: Annotated[str, typer.Argument(help="message, topic, atom or chunk")],
    row_id: Annotated[int, typer.Argument(metavar="ID")],
    dataset: Dataset = None,
    k: Limit = 10,
    as_json: Json = False,
) -> None:
    """Find rows that say nearly the same as one row."""
    show(call(lambda r: finding.similar(r, kind, row_id, dataset=dataset, k=k)), as_json)


def duplicates(
    dataset: Dataset = None,
    kind: Annotated[str, typer.Option(help="message, topic, atom or chunk")] = "message",
    threshold: Annotated[float, typer.Option(help="The least cosine similarity.")] = 0.95,
    k: Limit = 100,
    as_json: Json = False,
) -> None:
    """Find pairs of rows that say the same."""
    pairs = call(lambda r: finding.duplicates(r, dataset=dataset, kind=kind, threshold=threshold, k=k))
    if as_json:
        output.document({"pairs": [asdict(pair) for pair in pairs]})
    elif pairs:
        output.table(
            None, ("score", "kind", "id", "other id"), [(p.score, p.kind, str(p.id), str(p.other_id)) for p in pairs]
        )
    else:
        output.say(f"No two {kind} rows are {threshold} or more alike.")


def show(answer: Answer, as_json: bool) -> None:
    """Hits as a document or as a table."""
    if as_json:
        output.document(asdict(answer))
        return
    rows = [(hit.score, hit.kind, str(hit.id), hit.dataset, snippet(hit.text, 90)) for hit in answer.hits]
    output.table(None, ("score", "kind", "id", "dataset", "text"), rows)
    waiting = f", {answer.pending_in_scope} rows here are not embedded yet" if answer.pending_in_scope else ""
    output.note(f"{len(rows)} hits from {answer.engine} in {answer.milliseconds:.1f} ms{waiting}")
