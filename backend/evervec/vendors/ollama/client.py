"""The connection to an Ollama server, for embedding and for chat: deadlines, a size cap, errors as `ProviderError`."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from ollama import AsyncClient
from pydantic import ValidationError

from evervec.errors import BadResponseError, TransientError
from evervec.vendors.http import (
    MOST_ERROR_BYTES,
    AnswerModel,
    Deadlines,
    connection_errors,
    first_reason,
    read_strictly,
    reason_of,
    require_address,
    require_key,
)
from evervec.vendors.ollama.refusals import refusal_error
from evervec.vendors.transport import GuardedTransport

OLLAMA_URL: Final = "http://127.0.0.1:11434"
UNLOADED_AFTER: Final = 300.0
"""Seconds without a request after which Ollama unloads a model, so that the next request has to load it."""


@dataclass(frozen=True)
class OllamaDeadlines(Deadlines):
    """Deadlines of an Ollama server; `load` is the one for a whole answer when the model may have to be loaded first."""

    silence: float = 180.0
    load: float = 180.0


class OllamaClient(AsyncClient):
    """`ollama.AsyncClient` whose every call raises a `ProviderError` subclass or returns a valid answer of `model`.

    A streamed answer is read inside `deadline`. `instead` describes a model that can do what this client asks for.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        provider: str,
        instead: str,
        api_key: str | None = None,
        deadlines: OllamaDeadlines | None = None,
        max_bytes: int = 32 << 20,
    ) -> None:
        self.provider, self.model = provider, model
        self._instead = instead
        self._deadlines = deadlines or OllamaDeadlines()
        self._max_bytes = max_bytes
        self._key = api_key
        self._warm_until = 0.0
        super().__init__(
            host=require_address(provider, base_url),
            transport=GuardedTransport(provider),
            headers={"authorization": f"Bearer {require_key(provider, api_key)}"} if api_key else {},
            timeout=httpx.Timeout(self._deadlines.silence, connect=self._deadlines.connect),
            follow_redirects=False,
            trust_env=False,
            event_hooks={"request": [self._send_only_our_key], "response": [self._raise_refusal]},
        )

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Hold one answer to its deadline, and raise a `ProviderError` for what the connection raises meanwhile."""
        seconds = self._deadlines.total if time.monotonic() < self._warm_until else self._deadlines.load
        address = str(self._client.base_url)
        with connection_errors(self.provider, address, silence=self._deadlines.silence, total=seconds):
            async with asyncio.timeout(seconds):
                yield
        self._warm_until = time.monotonic() + UNLOADED_AFTER

    async def aclose(self) -> None:
        """Close the connections."""
        await self.close()  # type: ignore[no-untyped-call]  # the library leaves it unannotated

    async def _request(  # type: ignore[override]  # the one place that all calls of the library go through
        self, cls: type[AnswerModel], *args: Any, stream: bool = False, **how: Any
    ) -> AnswerModel | AsyncGenerator[AnswerModel, None]:
        """Replace the library's own, which takes strings for numbers and any size, and drops Retry-After."""
        if stream:
            return self._parts(cls, *args, **how)
        async with self.deadline(), self._client.stream(*args, **how) as response:
            body = await self._body(response)
        return read_strictly(cls, body, self.provider)

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > self._max_bytes:
                raise BadResponseError(self.provider, f"the answer is longer than {self._max_bytes:,} bytes")
        return bytes(body)

    async def _parts(self, kind: type[AnswerModel], *args: Any, **how: Any) -> AsyncGenerator[AnswerModel, None]:
        async with self._client.stream(*args, **how) as response:
            async for line in response.aiter_lines():
                yield self._part(kind, line)

    def _part(self, kind: type[AnswerModel], line: str) -> AnswerModel:
        """Read one line of a streamed answer; a line `{"error": …}` may follow a good beginning."""
        try:
            document = json.loads(line)
            if isinstance(document, dict) and document.get("error"):
                raise TransientError(self.provider, str(document["error"]))
            return kind.model_validate(document)
        except ValidationError as problem:
            raise BadResponseError(self.provider, first_reason(problem)) from None
        except ValueError:
            raise BadResponseError(self.provider, "a line of the answer is not JSON") from None

    async def _raise_refusal(self, response: httpx.Response) -> None:
        """Raise what a status outside 2xx means; the body is `{"error": "…"}`, or whatever a proxy in between writes."""
        if response.is_success:
            return
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > MOST_ERROR_BYTES:
                break
        reason = reason_of(bytes(body), self._key)
        if response.is_redirect:
            reason = f"it redirects to {response.headers.get('location')}, which is not followed"
        raise refusal_error(
            self.provider,
            response.status_code,
            reason,
            response.headers.get("retry-after"),
            model=self.model,
            instead=self._instead,
        )

    async def _send_only_our_key(self, request: httpx.Request) -> None:
        """Remove OLLAMA_API_KEY, which the library sends to any host: a key is sent only where it was stored."""
        if not self._key:
            request.headers.pop("authorization", None)
