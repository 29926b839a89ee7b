"""What Gemini and OpenAI have in common on the wire: a request is logged, meets its fault, is done and is answered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from aiohttp import web

from tests.fakes import ollama_faults, spoiling
from tests.fakes.faults import Fault, Rule
from tests.fakes.remote_files import Chunks
from tests.fakes.request_log import Request

if TYPE_CHECKING:
    from tests.fakes.server import FakeProvider

WHOLE_BODIES: dict[Fault, bytes] = {
    fault: body for fault, body in ollama_faults.BODIES.items() if fault is not Fault.TRUNCATED_JSON
}
STATUSES: dict[Fault, int] = {
    fault: status for fault, (status, _) in ollama_faults.REFUSALS.items() if fault is not Fault.DONE_BUT_500
}


@dataclass
class Reply:
    """An answer that is not sent yet: a document, or bytes that are made while they are sent."""

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Chunks | None = None

    def read(self) -> Iterator[bytes]:
        """Yield the body, as often as it is asked for."""
        return self.chunks() if self.chunks else iter((spoiling.dump(self.document),))


class Refused(Exception):
    """A request that a healthy provider refuses; carries the answer that says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.document)
        self.reply = reply


Act = Callable[..., Awaitable[Reply]]


@dataclass
class Call:
    """One request, read as far as its kind is read: `body` and `asked` are empty for uploads."""

    fake: FakeProvider
    request: web.Request
    body: bytes = b""
    asked: dict[str, Any] = field(default_factory=dict)
    fault: Fault | None = None


class Dialect(Protocol):
    """The parts that differ between protocols."""

    def stranger(self, fake: FakeProvider, request: web.Request) -> Reply | None:
        """Return the answer to a client without the right key."""

    def uploads(self, request: web.Request) -> bool:
        """Return whether the body is a file, which is read while it is stored."""

    def works(self, path: str) -> bool:
        """Return whether this request embeds or describes at once, so that a rule without an endpoint applies."""

    def model(self, call: Call) -> str:
        """Return the requested model."""

    def texts(self, call: Call) -> Sequence[str]:
        """Return the texts in the request itself."""

    def failure(self, status: int, rule: Rule) -> Reply:
        """Return the answer of a fault that has a status."""

    async def act(self, call: Call) -> Reply:
        """Do what is asked. Raises `Refused`."""


async def converse(fake: FakeProvider, request: web.Request, dialect: Dialect) -> web.StreamResponse:
    """Answer one request as the provider would, or as the first fault that applies says."""
    call = Call(fake, request)
    if not dialect.uploads(request):
        call.body = await request.read()
        call.asked = document(call.body)
    if refusal := dialect.stranger(fake, request):
        _note(call, dialect, (), refusal.status)
        return await send(call, refusal)
    texts = tuple(dialect.texts(call))
    rule = fake.faults.take(request.path, dialect.works(request.path), texts, request.method)
    call.fault = rule.fault if rule else None
    if rule and (early := await _before(call, dialect, texts, rule)):
        return early
    reply = await _done(call, dialect)
    if rule and call.fault is Fault.DONE_BUT_500:
        reply = dialect.failure(500, rule)
    if call.fault not in (Fault.STALL, Fault.SLOW_LOAD):  # noted before the wait
        cut = call.fault in ollama_faults.CUT
        _note(call, dialect, texts, 0 if cut else reply.status)
    return await send(call, reply)


def document(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request; empty where there is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


async def _done(call: Call, dialect: Dialect) -> Reply:
    try:
        return await dialect.act(call)
    except Refused as refused:
        return refused.reply


def _note(call: Call, dialect: Dialect, texts: tuple[str, ...], status: int) -> None:
    path, method = call.request.path, call.request.method
    entry = Request(path, dialect.model(call), texts, status, call.fault, call.body, method=method)
    call.fake.requests.append(entry)


async def _before(call: Call, dialect: Dialect, texts: tuple[str, ...], rule: Rule) -> web.StreamResponse | None:
    """Return the failing answer of a fault that comes before anything is done."""
    fault = rule.fault
    if fault is Fault.RESET:
        _note(call, dialect, texts, 0)
        ollama_faults.cut(call.request)
        return web.Response()
    if fault in (Fault.STALL, Fault.SLOW_LOAD):
        _note(call, dialect, texts, ollama_faults.status(fault))
        await call.fake.wait(rule.seconds)
        return None
    if fault not in STATUSES and fault not in WHOLE_BODIES and fault not in (Fault.REDIRECT_302, Fault.HUGE_BODY):
        return None
    async for _ in call.request.content.iter_any():
        continue  # a refusal in the middle of an upload would reach the client as a broken pipe
    _note(call, dialect, texts, ollama_faults.status(fault))
    if fault in STATUSES:
        return await send(call, dialect.failure(STATUSES[fault], rule))
    if fault is Fault.REDIRECT_302:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
    if fault is Fault.HUGE_BODY:
        return await ollama_faults.huge(call.request)
    kind = "text/html" if fault is Fault.HTML_200 else "application/json"
    return web.Response(body=WHOLE_BODIES[fault], content_type=kind)


async def send(call: Call, reply: Reply) -> web.StreamResponse:
    """Send an answer, as much of it as the fault lets through."""
    if call.fault is Fault.LOST_ANSWER:
        ollama_faults.cut(call.request)
        return web.Response()
    half = call.fault in ollama_faults.MID_BODY or call.fault is Fault.TRUNCATED_JSON
    if reply.chunks is None and not half:
        return web.Response(
            body=spoiling.dump(reply.document),
            status=reply.status,
            content_type="application/json",
            headers=reply.headers,
        )
    return await _stream(call, reply, half)


async def _stream(call: Call, reply: Reply, half: bool) -> web.StreamResponse:
    """Stream the body as it is made; half of it needs to know its whole size, so it is made twice."""
    kind = "application/octet-stream" if reply.chunks else "application/json"
    response = web.StreamResponse(status=reply.status, headers=reply.headers | {"Content-Type": kind})
    left = sum(len(chunk) for chunk in reply.read()) // 2 if half else None
    await response.prepare(call.request)
    for chunk in reply.read():
        await response.write(chunk if left is None else chunk[:left])
        if left is not None and (left := left - len(chunk)) <= 0:
            break
    if call.fault in ollama_faults.MID_BODY and call.fault is not None:
        return await ollama_faults.break_off(call.fake, call.request, response, call.fault)
    return response


class Routes:
    """The endpoints of one protocol: a method and a path whose parts in braces are given to the function as names."""

    def __init__(self, *routes: tuple[str, str, Act]) -> None:
        self._routes = [
            (method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/:]+)", path)), act) for method, path, act in routes
        ]

    def find(self, method: str, path: str) -> tuple[Act, dict[str, str]] | None:
        """Return the function for a request and the names in its path."""
        for wanted, pattern, act in self._routes:
            if method == wanted and (match := pattern.fullmatch(path)):
                return act, match.groupdict()
        return None
