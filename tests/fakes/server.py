"""The core of the fake provider: one HTTP server, its faults and its log; what is said on the wire lives elsewhere."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

from tests.fakes import compatible, gemini, ollama, openai, wire
from tests.fakes.batches import Batches
from tests.fakes.faults import Fault, FaultQueue, Predicate, Rule, same_endpoint
from tests.fakes.pace import Pace
from tests.fakes.request_log import EMBEDDING, Request, count_texts


class FakeProvider:
    """`async with FakeProvider(dims=64) as fake:` serves at `fake.url` until the block ends.

    The path says which protocol answers: `/v1/...` is OpenAI, `/v1beta/...` with its `/upload` and `/download` is the
    Gemini Developer API, `/vllm/…` and so on the servers of compatible.py, everything else Ollama. Every model name is known unless it is in `missing`; `widths` gives
    single models another width than `dims`; those in `unbatched` have no batch. OpenAI's chat refuses the options in `chat_refuses`. With `api_key`, requests must carry
    it. `context_tokens` (4 characters a token) is what Ollama refuses texts above, and what Gemini's models tell.
    """

    def __init__(
        self,
        dims: int = 64,
        *,
        api_key: str | None = None,
        context_tokens: int = 2048,
        widths: dict[str, int] | None = None,
        port: int = 0,
    ) -> None:
        self.dims, self.api_key, self.context_tokens = dims, api_key, context_tokens
        self.widths = widths or {}
        self.missing: set[str] = set()
        self.unbatched: set[str] = set()
        self.digests: dict[str, str] = {}
        """By model, the digest that Ollama tells."""
        self.weights: dict[str, str] = {}
        """By model, another one whose vectors it answers with from now on."""
        self.chat_refuses: set[str] = set()
        self.cuts_at: int | None = None
        """Words: of a longer text OpenAI and Gemini read no more, and say nothing, as some servers do."""
        self.told_tokens: int | None = None
        """What OpenAI says that it counted, whatever was sent."""
        self.requests: list[Request] = []
        self.faults = FaultQueue()
        self.pace = Pace()
        self.batches = Batches()
        self.url = ""
        self._port = port
        self._runner: web.AppRunner | None = None
        self._resumed = asyncio.Event()
        self._stopped = False

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=256 << 20)
        application.router.add_post("/_fault", self._add_fault)
        application.router.add_post("/_heal", self._heal)
        application.router.add_post("/_pace", self._set_pace)
        application.router.add_get("/_log", self._show_log)
        application.router.add_get("/_batches", self._show_batches)
        application.router.add_post("/_batches", self._set_batches)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self.resume()
        if self._runner is not None:
            await self._runner.cleanup()

    def fail_next(self, times: int, fault: Fault, **how: Any) -> None:
        """Fail the next `times` requests that embed or chat; `how` are further fields of `Rule`."""
        self.faults.add(Rule(fault, left=times, **how))

    def always(self, matches: Predicate | None, fault: Fault, **how: Any) -> None:
        """Fail every request that holds a text for which `matches` is true (None: every request)."""
        self.faults.add(Rule(fault, matches=matches, **how))

    def heal(self) -> None:
        """Forget every fault, and every wish that jobs or lines go wrong."""
        self.faults.clear()
        self.batches.heal()

    def resume(self) -> None:
        """Forget every fault, and let the requests that stall or load slowly go on at once."""
        self.faults.clear()
        self._resumed.set()
        self._resumed = asyncio.Event()

    def width(self, model: str) -> int:
        """Return the width of this model's vectors."""
        return self.widths.get(model, self.dims)

    def texts_sent(self) -> Counter[str]:
        """Count how often each text arrived to be embedded, whatever was answered."""
        return count_texts(self.requests, embedded=False)

    def texts_embedded(self) -> Counter[str]:
        """Count how often each text was embedded and answered well."""
        return count_texts(self.requests, embedded=True)

    def calls(self, endpoint: str = "/api/embed") -> int:
        """Count the requests that arrived at an endpoint, which is written as in `same_endpoint`."""
        return sum(same_endpoint(endpoint, request.endpoint, request.method) for request in self.requests)

    def read(self, text: str) -> str:
        """Return the part of a text that a model of OpenAI or Gemini reads."""
        return text if self.cuts_at is None else " ".join(text.split()[: self.cuts_at])

    async def wait(self, seconds: float) -> None:
        """Let that much time pass for a client, or less when it is told to resume or being stopped."""
        if not self._stopped:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._resumed.wait(), seconds)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith(EMBEDDING):
            await asyncio.sleep(self.pace.delay)
            if (wait := self.pace.count()) is not None:
                self.requests.append(Request(request.path, "", (), 429, Fault.RATE_LIMITED_429))
                return ollama.error(429, "too many requests", **{"Retry-After": f"{wait:.3f}"})
        if request.path.startswith(gemini.PREFIXES):
            return await wire.converse(self, request, gemini.Gemini())
        if server := compatible.server_of(request.path):
            return await wire.converse(self, request, compatible.Compatible(server))
        if request.path.startswith(openai.PREFIX):
            return await wire.converse(self, request, openai.OpenAI())
        return await ollama.answer(self, request)

    async def _add_fault(self, request: web.Request) -> web.Response:
        """Add a fault from another process.

        The body is `{"fault", "times"?, "contains"?, "endpoint"?, "seconds"?, "retry_after"?}`.
        """
        wish = orjson.loads(await request.read())
        rule = Rule(Fault(wish["fault"]), left=wish.get("times"), endpoint=wish.get("endpoint"))
        if word := wish.get("contains"):
            rule.matches = lambda text: word in text
        changes = {name: wish[name] for name in ("seconds", "retry_after") if name in wish}
        self.faults.add(replace(rule, **changes))
        return web.json_response({"ok": True})

    async def _set_pace(self, request: web.Request) -> web.Response:
        """Set the pace from another process: any fields of `Pace`, the others as they are by default."""
        self.pace = Pace(**orjson.loads(await request.read()))
        return web.json_response({"ok": True})

    async def _heal(self, _: web.Request) -> web.Response:
        self.heal()
        return web.json_response({"ok": True})

    async def _show_log(self, _: web.Request) -> web.Response:
        lines = [
            {
                "at": r.at,
                "method": r.method,
                "endpoint": r.endpoint,
                "model": r.model,
                "texts": r.texts,
                "status": r.status,
                "fault": r.fault,
            }
            for r in self.requests
        ]
        jobs = [job.summary() for job in self.batches.jobs]
        return web.Response(body=orjson.dumps({"requests": lines, "jobs": jobs}), content_type="application/json")

    async def _show_batches(self, request: web.Request) -> web.Response:
        """Show the jobs and the live files; with `?lines=1` what each job holds."""
        jobs = [job.summary(lines="lines" in request.query) for job in self.batches.jobs]
        shown = {"jobs": jobs, "files": [*self.batches.files], "deleted_files": self.batches.deleted_files}
        return web.Response(body=orjson.dumps(shown), content_type="application/json")

    async def _set_batches(self, request: web.Request) -> web.Response:
        """Set any switch of `Batches` from another process: `{"polls": 0, "outcome": "fail", ...}`."""
        self.batches.wish(**orjson.loads(await request.read()))
        return web.json_response({"ok": True})
