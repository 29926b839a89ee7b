"""The connection to an Ollama server that embeds: deadlines, a size cap, strict JSON, answers put on the ladder."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Never, TypeVar

import httpx
from ollama import AsyncClient
from pydantic import BaseModel, ValidationError

from evervec.errors import (
    BadResponseError,
    ConfigError,
    ProviderError,
    TransientError,
    from_answer,
    reason_of,
    require_address,
    require_key,
)
from evervec.vendors.strict import first_reason

Answer = TypeVar("Answer", bound=BaseModel)
UNLOADED_AFTER = 300.0


@dataclass(frozen=True)
class Deadlines:
    """Seconds: to connect, for a whole request, and for one that may have to load the model first."""

    connect: float = 5.0
    total: float = 120.0
    load: float = 180.0


class OllamaClient(AsyncClient):
    """`ollama.AsyncClient` whose every call raises a `ProviderError` subclass or returns a strictly valid answer."""

    def __init__(
        self,
        base_url: str,
        *,
        provider: str,
        api_key: str | None = None,
        deadlines: Deadlines | None = None,
        max_bytes: int = 32 << 20,
    ) -> None:
        self.provider = provider
        self._deadlines = deadlines or Deadlines()
        self._max_bytes = max_bytes
        self._key = api_key
        self._warm_until = 0.0
        super().__init__(
            host=require_address(provider, base_url),
            headers={"authorization": f"Bearer {require_key(provider, api_key)}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=self._deadlines.connect),
            follow_redirects=False,
            trust_env=False,
            event_hooks={"request": [self._only_our_key]},
        )

    async def _request(  # type: ignore[override]  # one seam for embed and show; we never stream, so no overloads
        self, cls: type[Answer], *args: Any, stream: bool = False, **kwargs: Any
    ) -> Answer:
        """The library's own version accepts strings as numbers, any size, and drops Retry-After."""
        body = await self._fetch(*args, **kwargs)
        try:
            return cls.model_validate_json(body, strict=True)
        except ValidationError as problem:
            raise BadResponseError(self.provider, first_reason(problem)) from None

    async def _fetch(self, *args: Any, **kwargs: Any) -> bytes:
        seconds = self._deadlines.total if time.monotonic() < self._warm_until else self._deadlines.load
        try:
            async with asyncio.timeout(seconds), self._client.stream(*args, **kwargs) as response:
                body = await self._read(response)
        except TimeoutError:
            raise TransientError(self.provider, f"no whole answer within {seconds:g} s") from None
        except httpx.ConnectTimeout:
            raise TransientError(self.provider, f"{self._where} does not answer within the connect deadline") from None
        except httpx.ConnectError as problem:
            raise TransientError(
                self.provider, f"{self._where} can not be reached ({problem}): is it started?"
            ) from None
        except httpx.DecodingError as problem:
            raise BadResponseError(self.provider, f"the answer can not be decompressed: {problem}") from None
        except httpx.TransportError as problem:
            raise TransientError(self.provider, f"the connection broke: {str(problem) or repr(problem)}") from None
        if not 200 <= response.status_code < 300:
            self._refuse(response, body)
        self._warm_until = time.monotonic() + UNLOADED_AFTER
        return body

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                raise BadResponseError(self.provider, f"the answer is longer than {self._max_bytes:,} bytes")
        return bytes(body)

    def _refuse(self, response: httpx.Response, body: bytes) -> Never:
        """Raise what the status means; an error body is `{"error": "…"}`, or whatever a proxy in between writes."""
        reason = reason_of(body, self._key)
        if response.is_redirect:
            reason = f"it redirects to {response.headers.get('location')}, which is not followed"
        raise rung(self.provider, response.status_code, reason, response.headers.get("retry-after"))

    async def _only_our_key(self, request: httpx.Request) -> None:
        """The library sends OLLAMA_API_KEY to whatever host it is given: a key is sent only where it was stored."""
        if not self._key:
            request.headers.pop("authorization", None)

    @property
    def _where(self) -> str:
        return str(self._client.base_url)


def rung(provider: str, status: int, reason: str, retry_after: str | None) -> ProviderError:
    """Ollama's own words first, then what any HTTP server means by the status.

    It answers 400 for whatever its runner did, so a 400 is the text's fault only when nothing says otherwise.
    """
    words = reason.lower()
    if "does not support" in words:
        return ConfigError(provider, f"{reason}. Choose a model that embeds, for example nomic-embed-text.")
    if "nan or inf" in words or words.rstrip().endswith(("eof", "has terminated")):
        # A text can kill the runner for ever, or the machine did it once: BadResponseError lets the engine
        # find out by isolating the text and asking again, instead of waiting for ever or giving up at once.
        return BadResponseError(provider, f"HTTP {status}: {reason}")
    if status == 400 and any(sign in words for sign in ("connection re", "forcibly closed", "context canceled")):
        return TransientError(provider, f"HTTP {status}: {reason}")
    return from_answer(provider, status, reason, retry_after)
