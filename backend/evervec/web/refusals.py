"""Errors over HTTP: which status each one has, and the documents that say what is wrong."""

from dataclasses import dataclass
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from evervec.errors import (
    DatabaseDownError,
    EvervecError,
    IndexRunningError,
    LeaseLostError,
    ProviderError,
    QueueDownError,
    Refused,
    SourceDownError,
    UnknownDatasetError,
    UnknownDocumentError,
    UnknownProjectError,
    UnknownRowError,
)

NOT_FOUND = (UnknownDatasetError, UnknownDocumentError, UnknownProjectError, UnknownRowError)
UNAVAILABLE = (DatabaseDownError, LeaseLostError, QueueDownError, SourceDownError, ProviderError)


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what to do."""

    code: str
    message: str


@dataclass(frozen=True)
class RefusedAnswer:
    """A request that was not done."""

    error: Problem


@dataclass(frozen=True)
class BusyAnswer(RefusedAnswer):
    """Refused, because this run is running or waits."""

    run: UUID


@dataclass(frozen=True)
class UnauthorizedAnswer:
    """Refused without the server's key."""

    detail: str


def add_refusals(app: FastAPI) -> None:
    """Answer errors of the pipeline, and parameters that are invalid, with a status and a document."""
    app.add_exception_handler(EvervecError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    problem = Problem(type(error).__name__, str(error))
    answer: RefusedAnswer = RefusedAnswer(problem)
    run = error.values["run_id"] if isinstance(error, IndexRunningError) else None
    if isinstance(run, UUID):  # a run that has just ended has no id any more
        answer = BusyAnswer(problem, run)
    return JSONResponse(jsonable_encoder(answer), _status(error))


def _status(error: Exception) -> int:
    match error:
        case _ if isinstance(error, NOT_FOUND):
            return 404
        case IndexRunningError():
            return 409
        case Refused():
            return 422
        case _ if isinstance(error, UNAVAILABLE):
            return 503
        case _:
            return 500


async def _refuse_parameters(request: Request, error: Exception) -> JSONResponse:
    """Answer an invalid parameter in the words of all other errors of the caller."""
    wrong = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong)
    return await _refuse(request, Refused(reason=f"{said}."))
