"""The HTTP API: status, search and mirrors. Errors become statuses here and nowhere else."""

from dataclasses import asdict
from hmac import compare_digest
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader

from evervec.errors import (
    DatabaseDownError,
    EvervecError,
    IndexRunningError,
    ProviderError,
    QueueDownError,
    Refused,
    SourceDownError,
    UnknownDatasetError,
    UnknownProjectError,
    UnknownRowError,
)
from evervec.pipeline.resources import Resources
from evervec.pipeline.search import search
from evervec.pipeline.status import overview
from evervec.pipeline.status.mirrors import mirror_status
from evervec.pipeline.upkeep import mirror_check
from evervec.web.rag import add_rag

NOT_FOUND = (UnknownDatasetError, UnknownProjectError, UnknownRowError)
UNAVAILABLE = (DatabaseDownError, QueueDownError, SourceDownError, ProviderError)

MIN_WATERMARK = "A transaction id of yours: what it committed is embedded and found."

Key = APIKeyHeader(name="X-API-KEY", auto_error=False)


def create_app(resources: Resources) -> FastAPI:
    """The application over open resources; whoever opened them closes them."""
    secret = resources.settings.api_key

    async def allowed(given: Annotated[str | None, Security(Key)]) -> None:
        if secret is not None and not compare_digest((given or "").encode(), secret.get_secret_value().encode()):
            raise HTTPException(401, "Give the key of this server as X-API-KEY.", {"WWW-Authenticate": "X-API-KEY"})

    app = FastAPI(title="Evervec", docs_url="/docs", redoc_url=None)
    app.add_exception_handler(EvervecError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether this process reaches its database."""
        async with resources.database.read() as tx:
            await tx.now()
        return {"status": "ok"}

    @app.get("/v1/status", dependencies=[Depends(allowed)])
    async def status(dataset: str | None = None, project: str | None = None) -> dict[str, Any]:
        """Coverage by dataset and kind, as `evervec status --json`."""
        return await overview.status(resources, dataset=dataset, project=project)

    @app.get("/v1/search", dependencies=[Depends(allowed)])
    async def find(
        q: Annotated[str, Query(description="What to look for.", examples=["job stuck after worker crash"])],
        dataset: str | None = None,
        project: str | None = None,
        kind: str | None = None,
        k: Annotated[int, Query(ge=1, le=search.MOST_HITS)] = 10,
        engine: Annotated[str, Query(description=f"{', '.join(search.ENGINES)}.")] = "auto",
        min_watermark: Annotated[int | None, Query(ge=3, lt=2**63, description=MIN_WATERMARK)] = None,
        wait_seconds: Annotated[float, Query(ge=0, le=60)] = search.WAIT_SECONDS,
    ) -> dict[str, Any]:
        """The rows nearest in meaning, as `evervec search --json`."""
        answer = await search.search(
            resources,
            q,
            dataset=dataset,
            project=project,
            kind=kind,
            k=k,
            engine=engine,
            min_watermark=min_watermark,
            wait_seconds=wait_seconds,
        )
        return asdict(answer)

    _add_mirrors(app, resources, Depends(allowed))
    add_rag(app, resources, Depends(allowed))
    return app


def _add_mirrors(app: FastAPI, resources: Resources, key: Any) -> None:
    @app.get("/v1/mirrors", dependencies=[key])
    async def mirrors(dataset: str | None = None, project: str | None = None) -> dict[str, Any]:
        """How each mirror stands, as `evervec mirror status --json`."""
        return {"datasets": await mirror_status(resources, dataset=dataset, project=project)}

    @app.post("/v1/mirrors/{dataset}/check", dependencies=[key])
    async def check(dataset: str, project: str | None = None) -> dict[str, Any]:
        """Compare and repair, as `evervec mirror check --json`; 200 whatever it found."""
        found = await mirror_check.check_index_sync(resources, dataset=dataset, project=project, deep=True)
        return {"in_sync": all(one.in_sync for one in found), "datasets": [asdict(one) for one in found]}

    @app.post("/v1/mirrors/{dataset}/rebuild", dependencies=[key])
    async def rebuild(dataset: str, project: str | None = None) -> dict[str, Any]:
        """Build anew from the database, as `evervec mirror rebuild --json`."""
        found = await mirror_check.rebuild_from_database(resources, dataset=dataset, project=project)
        return {"holds": all(one.holds for one in found), "datasets": [asdict(one) for one in found]}


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status, more = 500, dict[str, str]()
    match error:
        case _ if isinstance(error, NOT_FOUND):
            status = 404
        case IndexRunningError():
            status, more = 409, {"run": str(error.values["run_id"])}
        case Refused():
            status = 422
        case _ if isinstance(error, UNAVAILABLE):
            status = 503
    return JSONResponse({"error": {"code": type(error).__name__, "message": str(error)}, **more}, status)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """A parameter that is none, told as everything else that the caller did wrong."""
    wrong = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)
    return await _refused(request, Refused(reason=f"{said}."))
