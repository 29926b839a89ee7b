"""The HTTP API: status, search and mirrors."""

from hmac import compare_digest
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Security
from fastapi.security import APIKeyHeader

from evervec.pipeline.resources import Resources
from evervec.pipeline.search import search
from evervec.pipeline.search.answer import SearchAnswer
from evervec.pipeline.status import overview, row
from evervec.pipeline.status.mirrors import MirrorList, mirror_status
from evervec.pipeline.status.overview import Overview
from evervec.pipeline.status.row import RowReport
from evervec.pipeline.upkeep import mirror_check
from evervec.pipeline.upkeep.mirror_check import BuildReport, CheckReport
from evervec.pipeline.upkeep.triggers import trigger_problems
from evervec.web import search_request
from evervec.web.probes import add_probes
from evervec.web.rag import add_rag
from evervec.web.refusals import add_refusals
from evervec.web.search_request import SearchRequest

MIN_WATERMARK = "A transaction id of yours: what it committed is embedded and found."

WHERE = "A condition on the fields of rows, as `evervec search --where` takes it."

SEARCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": SearchRequest.model_json_schema(), "example": search_request.SEARCH}
        },
    }
}

Key = APIKeyHeader(name="X-API-KEY", auto_error=False)


def create_app(resources: Resources) -> FastAPI:
    """Return the application over open resources; the caller who opened them closes them."""
    secret = resources.settings.api_key

    async def allowed(given: Annotated[str | None, Security(Key)]) -> None:
        if secret is not None and not compare_digest((given or "").encode(), secret.get_secret_value().encode()):
            raise HTTPException(401, "Give the key of this server as X-API-KEY.", {"WWW-Authenticate": "X-API-KEY"})

    app = FastAPI(title="Evervec", docs_url="/docs", redoc_url=None)
    add_refusals(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Tell whether this process reaches its database."""
        async with resources.database.read() as tx:
            await tx.now()
        return {"status": "ok"}

    @app.get("/v1/status", dependencies=[Depends(allowed)])
    async def status(dataset: str | None = None, project: str | None = None) -> Overview:
        """Return coverage by dataset and kind, as `evervec status --json`."""
        return await overview.status(resources, dataset=dataset, project=project)

    @app.get("/v1/search", dependencies=[Depends(allowed)])
    async def find(
        q: Annotated[str, Query(description="What to look for.", examples=["job stuck after worker crash"])],
        dataset: str | None = None,
        project: str | None = None,
        kind: str | None = None,
        where: Annotated[str | None, Query(description=WHERE, examples=['author = "ada"'])] = None,
        mode: Annotated[str, Query(description=f"{', '.join(search.MODES)}.")] = "auto",
        k: Annotated[int, Query(ge=1, le=search.MOST_HITS)] = 10,
        engine: Annotated[str, Query(description=f"{', '.join(search.ENGINES)}.")] = "auto",
        min_watermark: Annotated[int | None, Query(ge=3, lt=2**63, description=MIN_WATERMARK)] = None,
        wait_seconds: Annotated[float, Query(ge=0, le=60)] = search.WAIT_SECONDS,
    ) -> SearchAnswer:
        """Return the rows nearest in meaning, as `evervec search --json`."""
        return await search.search(
            resources,
            q,
            dataset=dataset,
            project=project,
            kind=kind,
            where=where,
            mode=mode,
            k=k,
            engine=engine,
            min_watermark=min_watermark,
            wait_seconds=wait_seconds,
        )

    @app.post("/v1/search", dependencies=[Depends(allowed)], openapi_extra=SEARCH_BODY)
    async def find_all(request: Annotated[SearchRequest, Depends(search_request.read)]) -> SearchAnswer:
        """Return the same, with all that a search may ask for: a condition as a tree, one hit a document, snippets."""
        return await search.search(resources, request.q, **request.asked())

    @app.get("/v1/rows/{kind}/{row_id}", dependencies=[Depends(allowed)])
    async def one_row(
        kind: str,
        row_id: Annotated[int, Path(ge=1, lt=2**63)],
        k: Annotated[int, Query(ge=0, le=search.MOST_HITS, description="How many neighbours.")] = 5,
    ) -> RowReport:
        """Return all that is known of a row, as `evervec row --json`."""
        return await row.one(resources, kind, row_id, k=k)

    add_probes(app, resources)
    _add_mirrors(app, resources, Depends(allowed))
    add_rag(app, resources, Depends(allowed))
    return app


def _add_mirrors(app: FastAPI, resources: Resources, key: Any) -> None:
    @app.get("/v1/mirrors", dependencies=[key])
    async def mirrors(dataset: str | None = None, project: str | None = None) -> MirrorList:
        """Return the state of each mirror, as `evervec mirror status --json`."""
        return MirrorList(await mirror_status(resources, dataset=dataset, project=project))

    @app.post("/v1/mirrors/{dataset}/check", dependencies=[key])
    async def check(dataset: str, project: str | None = None) -> CheckReport:
        """Compare and repair, as `evervec mirror check --json`; 200 whatever it found."""
        found = await mirror_check.check_index_sync(resources, dataset=dataset, project=project, deep=True)
        return CheckReport.of(found, await trigger_problems(resources))

    @app.post("/v1/mirrors/{dataset}/rebuild", dependencies=[key])
    async def rebuild(dataset: str, project: str | None = None) -> BuildReport:
        """Build anew from the database, as `evervec mirror rebuild --json`."""
        found = await mirror_check.rebuild_from_database(resources, dataset=dataset, project=project)
        return BuildReport.of(found)
