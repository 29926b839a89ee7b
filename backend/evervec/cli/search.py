"""`evervec search`, `similar` and `duplicates`."""

from dataclasses import asdict
from typing import Annotated

import typer

from evervec.cli import output
from evervec.cli.options import Dataset, Json, Kind, Limit, Project
from evervec.cli.run import call
from evervec.pipeline import search as finding
from evervec.pipeline.search import Answer
from evervec.store.embeddables import BY_NAME

Engine = Annotated[str, typer.Option(metavar="ENGINE", help=f"{', '.join(finding.ENGINES)}.")]
RowKind = Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join(BY_NAME)}.")]
RowId = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The id as `evervec search` prints it.")]


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in your own words.")],
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


def similar(kind: RowKind, row_id: RowId, dataset: Dataset = None, k: Limit = 10, as_json: Json = False) -> None:
    """Find rows that say nearly the same as one row."""
    show(call(lambda r: finding.similar(r, kind, row_id, dataset=dataset, k=k)), as_json)


def duplicates(
    dataset: Dataset = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help=f"{', '.join(BY_NAME)}.")] = "message",
    threshold: Annotated[float, typer.Option(metavar="X", help="The least cosine similarity, up to 1.")] = 0.95,
    k: Limit = 100,
    as_json: Json = False,
) -> None:
    """Find pairs of rows that say the same."""
    pairs = call(lambda r: finding.duplicates(r, dataset=dataset, kind=kind, threshold=threshold, k=k))
    if as_json:
        output.document({"pairs": [asdict(pair) for pair in pairs]})
    elif pairs:
        rows = [(pair.score, pair.kind, str(pair.id), str(pair.other_id)) for pair in pairs]
        output.table(("score", "kind", "id", "other id"), rows)
    else:
        output.say(f"No two {kind} rows are {threshold:g} or more alike.")


def show(answer: Answer, as_json: bool) -> None:
    """Hits as a document or as a table."""
    if as_json:
        output.document(asdict(answer))
        return
    if answer.hits:
        rows = [(hit.score, hit.kind, str(hit.id), hit.dataset, hit.text) for hit in answer.hits]
        output.table(("score", "kind", "id", "dataset", "text"), rows)
    else:
        output.say("Nothing found.")
    waiting = f"; {answer.pending_in_scope:,} rows here are not embedded yet" if answer.pending_in_scope else ""
    count = "1 hit" if len(answer.hits) == 1 else f"{len(answer.hits)} hits"
    output.note(f"{count} from {answer.engine} in {answer.milliseconds:.1f} ms{waiting}")
