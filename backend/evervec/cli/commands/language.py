"""`evervec language`: in which language the words of a dataset are searched."""

from typing import Annotated

import typer

from evervec.cli.render.runs import counted
from evervec.cli.terminal import output
from evervec.cli.terminal.options import Dataset, Json
from evervec.cli.terminal.run import call
from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import languages
from evervec.pipeline.search.languages import LanguageReport

NO_LANGUAGE = "none"

Language = Annotated[
    str | None,
    typer.Argument(
        metavar="LANGUAGE", help="english, german, simple (no stems) …, or none: words are not searched there."
    ),
]


def language(language: Language = None, dataset: Dataset = None, as_json: Json = False) -> None:
    """Show the language in which the words of a dataset are searched, or change it."""
    if language is not None and dataset is None:
        raise Refused(reason="Say which dataset has another language: evervec language german --dataset NAME.")

    async def run(resources: Resources) -> list[LanguageReport]:
        if language is None or dataset is None:
            return await languages.languages(resources, dataset)
        wanted = None if language == NO_LANGUAGE else language
        with output.progress("rows", None) as step:
            return [await languages.change_language(resources, dataset, wanted, progress=step)]

    found = call(run)
    if as_json:
        output.document({"datasets": found})
    elif language is None:
        output.table(("dataset", "language"), [(one.dataset, one.language or NO_LANGUAGE) for one in found])
    else:
        made = f"the words of {counted(found[0].rows, 'row')} made again" if found[0].language else "no words kept"
        output.echo(f"{found[0].dataset}: {found[0].language or NO_LANGUAGE}, {made}.")
