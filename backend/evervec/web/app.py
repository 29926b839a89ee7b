"""The HTTP API: status and search. Errors become statuses here and nowhere else."""

from dataclasses import asdict
from hmac import compare_digest
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader

from evervec.errors import (
    DatabaseDownError,
    EvervecError,
    ProviderError,
    QueueDownError,
    Refused,
    UnknownDatasetError,
    UnknownProjectError,
    UnknownRowError,
)
from evervec.pipeline import overview, search
from evervec.pipeline.resources import Resources

NOT_FOUND = (UnknownDatasetError, UnknownProjectError, UnknownRowError)
UNAVAILABLE = (DatabaseDownError, QueueDownError, ProviderError)

Key = APIKeyHeader(name="X-API-KEY", auto_error=False)


def create_app(resources: Resources) -> FastAPI:
    """The application over open resources; whoever opened them closes them."""
    secret = resources.settings.api_key

    async def allowed(given: Annotated[str | None, Security(Key)]) -> None:
        if secret is not None and not compare_digest((given or "").encode(), secret.get_secret_value().encode()):
            raise HTTPException(401, "Give the key of this server as X-API-KEY.", {"WWW-Authenticate": "X-API-KEY"})

    app = FastAPI(title="Evervec", docs_url="/docs", redoc_url=None)
    app.add_exception_handler(EvervecError, _refused)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether this process reaches its database."""
        async with resources.database.read() as tx:
            await tx.fetchval("SELECT 1")
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
        k: Annotated[int, Query(ge=1, le=search.MOST)] = 10,
        engine: str = "auto",
    ) -> dict[str, Any]:
        """The rows nearest in meaning, as `evervec search --json`."""
        return asdict(
            await search.search(resources, q, dataset=dataset, project=project, kind=kind, k=k, engine=engine)
        )

    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = 500
    match error:
        case _ if isinstance(error, NOT_FOUND):
            status = 404
        case Refused():
            status = 422
        case _ if isinstance(error, UNAVAILABLE):
            status = 503
    return JSONResponse({"error": {"code": type(error).__name__, "message": str(error)}}, status)
