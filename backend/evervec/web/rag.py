"""The HTTP API of indexing: a run asked for, how a dataset stands, what its runs cost and saved."""

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from pydantic import ValidationError

from evervec.errors import Refused
from evervec.pipeline.indexing import requests
from evervec.pipeline.indexing.requests import RunRequest
from evervec.pipeline.resources import Resources
from evervec.pipeline.status import indexing, runs
from evervec.store.runs import RUNS_KEPT
from evervec.web import rag_examples as examples
from evervec.web import rag_shapes as shapes
from evervec.web.rag_shapes import IndexRequest

MOST_BYTES = 64 << 20
"""A body with a million UUIDs has 40 MB."""

TAGS: list[str | Enum] = ["indexing"]
Which = Annotated[str, Path(description="A UUID, `project/slug`, or a slug that only one project has.")]
ASKED = {
    "required": False,
    "content": {"application/json": {"schema": IndexRequest.model_json_schema(), "examples": examples.REQUESTS}},
}


def add_rag(app: FastAPI, resources: Resources, key: Any) -> None:
    """Add `/v1/rag/…` to the application; `key` lets in who may come in, before a body is read."""

    @app.post(
        "/v1/rag/index/{dataset:path}",
        tags=TAGS,
        dependencies=[key],
        summary="Index a dataset from its source",
        status_code=202,
        response_model=shapes.Run,
        responses=_responses({200: (shapes.Run, "The run has ended; `state` tells how.", examples.DONE)})
        | _refusals(401, 404, 409, 422, 503)
        | {202: {"description": "The run waits for a worker.", **_example(examples.QUEUED)}},
        openapi_extra={"requestBody": ASKED},
    )
    async def index_dataset(
        dataset: Which,
        response: Response,
        asked: Annotated[IndexRequest, Depends(_asked)],
        full_rebuild: Annotated[bool, Query(description="Also delete what is gone at the source.")] = False,
        wait: Annotated[bool, Query(description="Work here, and answer the finished run.")] = False,
    ) -> dict[str, Any]:
        """Without `changed_ids` everything is compared, with them only those records are looked at.

        One run at a time: while one is at work or waits, another is refused with the id of that one. With `wait` the answer
        is 202 all the same if the source went away meanwhile: the run is tried again later."""
        found = await requests.dataset(resources.database, dataset)
        run_id = await requests.start(resources, found.id, _wish(asked, full_rebuild))
        run = await (runs.follow if wait else runs.one)(resources, run_id)
        response.status_code = 200 if run.finished_at is not None else 202
        return runs.run_document(run)

    @app.get(
        "/v1/rag/status/{dataset:path}",
        tags=TAGS,
        dependencies=[key],
        summary="How the indexing of a dataset stands",
        response_model=shapes.Status,
        responses=_responses({200: (shapes.Status, "The dataset as it is now.", examples.STATUS)})
        | _refusals(401, 404, 422, 503),
    )
    async def status(dataset: Which) -> dict[str, Any]:
        """What the dataset holds, the runs at work and waiting, the last one, and when the next full rebuild is due."""
        return await indexing.status(resources, dataset)

    @app.get(
        "/v1/rag/metrics/{dataset:path}",
        tags=TAGS,
        dependencies=[key],
        summary="What the runs of a dataset cost and saved",
        response_model=shapes.Metrics,
        responses=_responses({200: (shapes.Metrics, "All kept runs together, and the newest.", examples.METRICS)})
        | _refusals(401, 404, 422, 503),
    )
    async def metrics(
        dataset: Which, runs: Annotated[int, Query(ge=1, le=RUNS_KEPT, description="How many runs to list.")] = 20
    ) -> dict[str, Any]:
        """Saved is what a run without memory would have sent, less what was sent. Its seconds are those of `full_run`, the
        newest run that did everything from nothing, less the run's own; 0 for a slower one, null while none was measured."""
        return await indexing.metrics(resources.database, dataset, newest=runs)


def _wish(asked: IndexRequest, full_rebuild: bool) -> RunRequest:
    if full_rebuild and asked.changed_ids is not None:
        raise Refused(
            reason="Give changed_ids or full_rebuild=true, not both: a full rebuild goes through everything anyway."
        )
    return RunRequest(asked.changed_ids, full_rebuild, trigger="http")


async def _asked(request: Request) -> IndexRequest:
    """Read the body up to its allowed length; no body is a request without ids. Raises `Refused`."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise Refused(reason=f"The body has more than {MOST_BYTES >> 20} MB. Send the changed ids in parts.")
    if not body.strip():
        return IndexRequest()
    try:
        return IndexRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "The body"
        raise Refused(
            reason=f"{place[:200]}: {first['msg']}. Send JSON like {examples.REQUESTS['delta']['value']}."
        ) from None


def _responses(good: Mapping[int, tuple[type, str, Mapping[str, Any]]]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": model, "description": said, **_example(example)}
        for status, (model, said, example) in good.items()
    }


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What may be answered instead."""
    return {
        status: {
            "model": shapes.Busy if status == 409 else shapes.Unauthorized if status == 401 else shapes.Refusal,
            "description": said,
            **_example(example),
        }
        for status, (said, example) in examples.REFUSALS.items()
        if status in statuses
    }


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"example": example}}}
