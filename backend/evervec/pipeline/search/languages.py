"""The language of a dataset's words: told, and changed."""

from collections.abc import Callable
from dataclasses import dataclass

from evervec.errors import Refused
from evervec.pipeline.resources import Resources
from evervec.store import datasets
from evervec.store.words import filling


@dataclass(frozen=True)
class LanguageReport:
    """The language of a dataset's words, None where they are not searched, and of how many rows they were made again."""

    dataset: str
    language: str | None
    rows: int = 0


async def languages(resources: Resources, dataset: str | None = None) -> list[LanguageReport]:
    """Return the language of each dataset. Raises `UnknownDatasetError`."""
    async with resources.database.read() as tx:
        return [LanguageReport(one.name, one.language) for one in await datasets.find(tx, dataset)]


async def change_language(
    resources: Resources, dataset: str, language: str | None, *, progress: Callable[[int], None] | None = None
) -> LanguageReport:
    """Make the words of a dataset in another language, or search them no more; rows are written and searched meanwhile.

    A run that was interrupted is finished by asking for the same again. Raises `UnknownDatasetError`, and `Refused` for a
    language that the server does not know or a name that several datasets have.
    """
    async with resources.database.transaction() as tx:
        known = await filling.languages(tx)
        if language is not None and language not in known:
            raise Refused(reason=f"There is no language {language!r} on this server. Languages: {', '.join(known)}.")
        found = await datasets.find(tx, dataset)
        if len(found) > 1:
            raise Refused(reason=f"Several datasets are called {dataset!r}: {', '.join(one.name for one in found)}.")
        await filling.set_language(tx, found[0].id, language)
    while await filling.make_due(resources.database, found[0].id, language):
        pass
    rows = 0
    while done := await filling.fill(resources.database, found[0].id):
        rows += done
        if progress is not None:
            progress(done)
    return LanguageReport(found[0].name, language, rows)
