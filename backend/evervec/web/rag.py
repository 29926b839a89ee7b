"""The HTTP API of indexing: request a run, follow it, see what the runs cost and saved."""

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Response
from pydantic import TypeAdapter

from evervec.errors import Refused
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import indexing, runs
from evervec.pipeline.status.indexing import IndexMetrics, IndexStatus
from evervec.pipeline.status.run_report import RunReport, run_report
from evervec.store.runs import RUNS_KEPT
from evervec.web import examples, index_request
from evervec.web.index_request import IndexRequest

TAGS: list[str | Enum] = ["indexing"]
DatasetPath = Annotated[str, Path(description="A UUID, `project/slug`, or a slug that only one project has.")]
BODY = {
    "required": False,
    "content": {"application/json": {"schema": IndexRequest.model_json_schema(), "examples": index_request.EXAMPLES}},
}


def add_rag(app: FastAPI, resources: Resources, key: Any) -> None:
    """Add `/v1/rag/…` to the application; `key` checks the caller's key before a body is read."""

    @app.post(
        "/v1/rag/index/{dataset:path}",
        tags=TAGS,
        dependencies=[key],
        summary="Index a dataset from its source",
        status_code=202,
        responses=_answers(
            {200: ("The run has ended; `state` tells how.", examples.DONE)}
            | {202: ("The run waits for a worker.", examples.QUEUED)},
            refusals=(401, 404, 409, 422, 503),
        ),
        openapi_extra={"requestBody": BODY},
    )
    async def index_dataset(
        dataset: DatasetPath,
        response: Response,
        request: Annotated[IndexRequest, Depends(index_request.read)],
        full_rebuild: Annotated[bool, Query(description="Also delete what is gone at the source.")] = False,
        wait: Annotated[bool, Query(description="Do the run here, and return it when it has ended.")] = False,
    ) -> RunReport:
        """Request a run: without `changed_ids` everything is compared, with them only those records are looked at.

        One run at a time: while one is running or waits, another is refused with the id of that one. With `wait` the answer
        is 202 all the same if the source went away meanwhile: the run is tried again later."""
        found = await requests.dataset(resources.database, dataset)
        run_id = await requests.start(resources, found.id, _run_request(request, full_rebuild))
        run = await (runs.follow if wait else runs.one)(resources, run_id)
        response.status_code = 200 if run.finished_at is not None else 202
        return run_report(run)

    @app.get(
        "/v1/rag/status/{dataset:path}",
        tags=TAGS,
        dependencies=[key],
        summary="Show what a dataset holds and what its runs do",
        responses=_answers({200: ("The dataset as it is now.", examples.STATUS)}, refusals=(401, 404, 422, 503)),
    )
    async def status(dataset: DatasetPath) -> IndexStatus:
        """Return what the dataset holds, the runs that are running and waiting, the last one, and the next full rebuild."""
        return await indexing.status(resources, dataset)

    @app.get(
        "/v1/rag/metrics/{dataset:path}",
        tags=TAGS,
        dependencies=[key],
        summary="Show what the runs of a dataset cost and saved",
        responses=_answers(
            {200: ("All kept runs together, and the newest.", examples.METRICS)}, refusals=(401, 404, 422, 503)
        ),
    )
    async def metrics(
        dataset: DatasetPath, runs: Annotated[int, Query(ge=1, le=RUNS_KEPT, description="How many runs to list.")] = 20
    ) -> IndexMetrics:
        """Return what the runs of the dataset cost and saved.

        Saved is what a first run would have sent, less what was sent. Its seconds are those of `full_run`, the
        newest run that did everything from nothing, less the run's own; 0 for a slower one, null while none was measured."""
        return await indexing.metrics(resources.database, dataset, newest=runs)


def _run_request(request: IndexRequest, full_rebuild: bool) -> RunRequest:
    if full_rebuild and request.changed_ids is not None:
        raise Refused(
            reason="Give changed_ids or full_rebuild=true, not both: a full rebuild goes through everything anyway."
        )
    return RunRequest(request.changed_ids, full_rebuild, trigger="http")


def _answers(good: Mapping[int, tuple[str, object]], *, refusals: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of an endpoint's answers, each with its model and an example of it."""
    every = {**good} | {status: examples.REFUSALS[status] for status in refusals}
    return {
        status: {
            "model": type(example),
            "description": said,
            "content": {"application/json": {"example": TypeAdapter(type(example)).dump_python(example, mode="json")}},
        }
        for status, (said, example) in every.items()
    }
