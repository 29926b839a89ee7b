"""The body of a search: all that one may be, with its condition as a tree or as text."""

from typing import Annotated, Any, Final

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from evervec.domain.conditions.tree import Condition
from evervec.errors import Refused
from evervec.pipeline.search import search
from evervec.pipeline.search.details import MOST_CONTEXT, Details
from evervec.web import bodies

MOST_SEARCH_BYTES = 4 << 20
"""A condition with a hundred thousand ids has 2 MB."""

SEARCH: Final = {"q": "wrong delivery time", "k": 5, "where": {"op": "eq", "field": "author", "value": "Grace"}}


class SearchRequest(BaseModel):
    """A question, where it is asked, and what the hits are to have beside themselves."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    q: str
    dataset: str | None = None
    project: str | None = None
    kind: str | None = None
    where: Annotated[str | Condition | None, Field(description="A condition on the fields of rows.")] = None
    k: Annotated[int, Field(ge=1, le=search.MOST_HITS)] = 10
    mode: Annotated[str, Field(description=f"{', '.join(search.MODES)}.")] = "auto"
    engine: Annotated[str, Field(description=f"{', '.join(search.ENGINES)}.")] = "auto"
    min_watermark: Annotated[int | None, Field(ge=3, lt=2**63)] = None
    fresh: Annotated[bool, Field(description="Wait until all is embedded that is committed now.")] = False
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = search.WAIT_SECONDS
    least_similarity: Annotated[float | None, Field(ge=-1, le=1)] = None
    by_document: Annotated[bool, Field(description="The best chunk of each document alone.")] = False
    context: Annotated[int, Field(ge=0, le=MOST_CONTEXT, description="Chunks before and after a chunk with it.")] = 0
    snippets: Annotated[bool, Field(description="The part of each text with the question's words, marked.")] = False
    explain: Annotated[bool, Field(description="How the answer came about.")] = False

    def asked(self) -> dict[str, Any]:
        """Return what the search of the pipeline takes beside the text."""
        details = Details(self.least_similarity, self.by_document, self.context, self.snippets, self.explain)
        same = ("dataset", "project", "kind", "where", "k", "mode", "engine", "min_watermark", "fresh", "wait_seconds")
        return {name: getattr(self, name) for name in same} | {"details": details}


async def read(request: Request) -> SearchRequest:
    """Read the body. Raises `Refused` for one that is empty, too long or invalid."""
    advice = "Name fewer values in the condition."
    found = await bodies.read(request, SearchRequest, most_bytes=MOST_SEARCH_BYTES, advice=advice, example=SEARCH)
    if found is None:
        raise Refused(reason=f"The body is empty. Send JSON like {SEARCH}.")
    return found
