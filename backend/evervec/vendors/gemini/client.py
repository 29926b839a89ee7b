"""The connection to the Gemini API: deadlines, a size cap, no redirects, errors as `ProviderError`; no embedding here.

Google's library sends its requests through this client, and the batch API is spoken by it alone: the library drops a
job's `error` and `batchStats`, reads a whole result file into memory and, through aiohttp, repeats requests by itself.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import orjson

from evervec.errors import BadResponseError, ConfigError, ProviderError, ResultsDeletedError
from evervec.vendors.gemini.refusals import GeminiRefusal, refusal_error
from evervec.vendors.http import Deadlines, connection_errors, require_address, require_key
from evervec.vendors.transport import GuardedTransport

GEMINI_URL = "https://generativelanguage.googleapis.com"
VERSION = "v1beta"
"""The version that Google's documents about batches and embedding describe."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


class GeminiClient(httpx.AsyncClient):
    """`httpx.AsyncClient` whose every request raises a `ProviderError` subclass or returns a whole answer of 2xx.

    Google's library takes it as its own HTTP client. No request is ever sent twice.
    """

    def __init__(
        self,
        base_url: str | None,
        *,
        provider: str,
        api_key: str,
        deadlines: Deadlines | None = None,
        max_bytes: int = 32 << 20,
    ) -> None:
        self.provider = provider
        self.deadlines = deadlines or Deadlines()
        self._max_bytes = max_bytes
        self._key = require_key(provider, api_key)
        address = require_address(provider, base_url or GEMINI_URL).rstrip("/").removesuffix(f"/{VERSION}")
        super().__init__(
            base_url=address,
            transport=GuardedTransport(provider),
            headers={"x-goog-api-key": self._key},
            timeout=httpx.Timeout(self.deadlines.silence, connect=self.deadlines.connect),
            follow_redirects=False,
            trust_env=False,
        )

    async def request(self, method: str, url: httpx.URL | str, **how: Any) -> httpx.Response:
        """Send one request, as the library calls it. Raise the `ProviderError` of a status outside 2xx."""
        how.pop("timeout", None)  # the library passes None, which would mean for ever
        response = await self.ask(method, url, **how)
        if not response.is_success:
            raise self.error_of(self.refusal(response))
        return response

    async def call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        """Return the JSON object that an endpoint of `v1beta` answers."""
        return self.document(await self.request(method, f"/{VERSION}/{path}", **how))

    async def ask(self, method: str, url: httpx.URL | str, **how: Any) -> httpx.Response:
        """Return the whole answer to one request, whatever its status. Raise only for errors of the connection."""
        with self._connection():
            async with asyncio.timeout(self.deadlines.total), self.stream(method, url, **how) as response:
                return await self._whole(response)

    async def pieces(self, *paths: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of the file at the first of these addresses that exists, as they come in.

        Raise `ResultsDeletedError` when none exists.
        """
        for path in paths:
            with self._connection():
                async with self.stream("GET", path, params={"alt": "media"}) as response:
                    if response.is_success:
                        self._require_no_page(response)
                        async for piece in response.aiter_bytes():
                            yield piece
                        return
                    refusal = self.refusal(await self._whole(response))
            if not refusal.missing:
                raise self.error_of(refusal)
        raise ResultsDeletedError(self.provider, f"HTTP {refusal.status}: {refusal.reason}")

    def document(self, response: httpx.Response) -> dict[str, Any]:
        """Return the JSON object of an answer. Raise `BadResponseError`."""
        try:
            document = orjson.loads(response.content)
        except orjson.JSONDecodeError as problem:
            raise BadResponseError(self.provider, f"the answer is not JSON: {problem}") from None
        if not isinstance(document, dict):
            raise BadResponseError(self.provider, f"the answer is a {type(document).__name__} and no object")
        return document

    def refusal(self, response: httpx.Response) -> GeminiRefusal:
        """Return what an answer outside 2xx says."""
        return GeminiRefusal.of(response, self._key)

    def error_of(self, refusal: GeminiRefusal) -> ProviderError:
        """Return the error for a refusal."""
        return refusal_error(self.provider, refusal)

    def path_of(self, url: str) -> str:
        """Return the path of an address that the server gave, so that file and key are sent to no other host."""
        try:
            path = httpx.URL(url).raw_path.decode("ascii")
        except httpx.InvalidURL:
            raise BadResponseError(self.provider, "the address to upload to is not an address") from None
        return "/" + path.removeprefix(self.base_url.raw_path.decode("ascii")).lstrip("/")

    async def _whole(self, response: httpx.Response) -> httpx.Response:
        """Return the answer with its body, which is decompressed already."""
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > self._max_bytes:
                raise BadResponseError(self.provider, f"the answer is longer than {self._max_bytes:,} bytes")
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_WIRE]
        return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)

    def _require_no_page(self, response: httpx.Response) -> None:
        if response.headers.get("content-type", "").startswith("text/html"):
            raise BadResponseError(self.provider, "a page of HTML came instead of the file")

    def _connection(self) -> AbstractContextManager[None]:
        return connection_errors(
            self.provider, str(self.base_url), silence=self.deadlines.silence, total=self.deadlines.total
        )


def require_model(provider: str, model: str) -> str:
    """Return a model's name without `models/`. Raise `ConfigError` for one that can not stand in an address."""
    bare = model.removeprefix("models/")
    if not _MODEL.fullmatch(bare) or ".." in bare:
        raise ConfigError(provider, f"{model[:200]!r} is not a model's name like gemini-embedding-001.")
    return bare
