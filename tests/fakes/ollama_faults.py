"""How each fault looks on Ollama's wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from tests.fakes import spoiling
from tests.fakes.faults import Fault, Rule

if TYPE_CHECKING:
    from tests.fakes.server import FakeProvider

REFUSALS: dict[Fault, tuple[int, str]] = {
    Fault.BUSY_503: (503, "server busy, please try again.  maximum pending requests exceeded"),
    Fault.MAINTENANCE_503: (503, "down for maintenance"),
    Fault.ERROR_500: (500, "llama runner: out of luck"),
    Fault.BAD_GATEWAY_502: (502, "bad gateway"),
    Fault.TIMEOUT_504: (504, "gateway timeout"),
    Fault.EOF_500: (500, 'do embedding request: Post "http://127.0.0.1:33967/embedding": EOF'),
    Fault.NAN_500: (500, "failed to encode response: json: unsupported value: NaN"),
    Fault.EOF_400: (400, 'do embedding request: Post "http://127.0.0.1:33967/embedding": EOF'),
    Fault.RATE_LIMITED_429: (429, "too many requests"),
    Fault.QUOTA_429: (429, "you have reached your weekly usage limit"),
    Fault.UNAUTHORIZED_401: (401, "unauthorized"),
    Fault.FORBIDDEN_403: (403, "forbidden"),
    Fault.NO_MODEL_404: (404, 'model "gone" not found, try pulling it first'),
    Fault.BAD_REQUEST_400: (400, "invalid input"),
    Fault.TOO_LONG_400: (400, "the input length exceeds the context length"),
    Fault.NAN_400: (400, "embedding contains NaN or Inf values"),
    Fault.WRONG_KIND_400: (400, '"gone" does not support embeddings'),
    Fault.TOO_LARGE_413: (413, "request entity too large"),
    Fault.DONE_BUT_500: (500, "llama runner: out of luck"),
}
WAITS = (Fault.RATE_LIMITED_429, Fault.QUOTA_429, Fault.MAINTENANCE_503)
BODIES: dict[Fault, bytes] = {
    Fault.HTML_200: b"<!doctype html><html><body>Sign in to the hotel network</body></html>",
    Fault.EMPTY_200: b"",
    Fault.NOT_AN_OBJECT: b"[1, 2, 3]",
    Fault.TRUNCATED_JSON: b'{"model":"fake-embed","embeddings":[[0.1,0.2',
}
CUT = (Fault.RESET, Fault.LOST_ANSWER, Fault.RESET_MID_BODY, Fault.STALL, Fault.STALL_MID_BODY)
MID_BODY = (Fault.STALL_MID_BODY, Fault.RESET_MID_BODY)
HUGE = 64 << 20


def status(fault: Fault) -> int:
    """Return the status that the log notes for this fault; 0 where no complete answer is sent."""
    if fault in CUT:
        return 0
    return REFUSALS[fault][0] if fault in REFUSALS else 302 if fault is Fault.REDIRECT_302 else 200


async def before(
    fake: FakeProvider, request: web.Request, rule: Rule, asked: dict[str, Any]
) -> web.StreamResponse | None:
    """Return the failing answer, or None for a fault that spoils a good answer later."""
    fault = rule.fault
    if fault in REFUSALS:
        code, reason = REFUSALS[fault]
        headers = {"Retry-After": rule.retry_after} if fault in WAITS and rule.retry_after is not None else {}
        return web.json_response(
            {"error": reason.replace("gone", str(asked.get("model")))}, status=code, headers=headers
        )
    if fault in BODIES:
        return web.Response(
            body=BODIES[fault], content_type="text/html" if fault is Fault.HTML_200 else "application/json"
        )
    match fault:
        case Fault.REDIRECT_302:
            return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
        case Fault.RESET | Fault.LOST_ANSWER:  # Ollama keeps nothing: lost before and lost after are the same
            cut(request)
            return web.Response()
        case Fault.STALL | Fault.SLOW_LOAD:
            await fake.wait(rule.seconds)
        case Fault.HUGE_BODY:
            return await huge(request)
    return None


def cut(request: web.Request) -> None:
    """Reset the connection: RST instead of FIN."""
    if request.transport is not None:
        request.transport.abort()


async def huge(request: web.Request) -> web.StreamResponse:
    """Answer with more than anyone wants to read."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(HUGE >> 20):
        await response.write(b" " * (1 << 20))
    return response


async def spoil_vectors(
    fake: FakeProvider,
    request: web.Request,
    fault: Fault | None,
    vectors: NDArray[np.float32],
    head: dict[str, Any],
    body: bytes,
) -> web.StreamResponse:
    """Return the good answer `body`, or what the fault makes of it."""
    if fault in MID_BODY:
        return await _half(fake, request, fault, body)
    if fault in spoiling.SPOILERS:
        body = spoiling.dump(head | {"embeddings": spoiling.rows(fault, vectors)})
    return web.Response(body=body, content_type="application/json")


async def _half(fake: FakeProvider, request: web.Request, fault: Fault, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return await break_off(fake, request, response, fault)


async def break_off(
    fake: FakeProvider, request: web.Request, response: web.StreamResponse, fault: Fault
) -> web.StreamResponse:
    """Break off an answer that has begun: reset it now, or when the client's timeout has passed."""
    if fault is Fault.STALL_MID_BODY:
        await fake.wait(3600)
    cut(request)
    return response
