"""The connection to OpenAI or a compatible server: deadlines, size caps, strict JSON, errors as `ProviderError`."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx2
from anyio import EndOfStream
from openai import APIConnectionError, AsyncAPIResponse, AsyncOpenAI, Omit, omit
from pydantic import BaseModel, Field

from evervec.errors import BadResponseError, ConfigError, ProviderError, TransientError
from evervec.vendors.http import (
    MOST_ERROR_BYTES,
    AnswerModel,
    Deadlines,
    read_strictly,
    require_address,
    require_key,
)
from evervec.vendors.openai.refusals import hidden_refusal, refusal_error
from evervec.vendors.openai.transport import OpenAITransport

OPENAI_URL: Final = "https://api.openai.com/v1"
PAGE_SIZE: Final = 100


class ListItem(BaseModel):
    """One object of a list."""

    id: str = Field(min_length=1)


Listed = TypeVar("Listed", bound=ListItem)
Call = AbstractAsyncContextManager[AsyncAPIResponse[Any]]


class ListPage(BaseModel, Generic[Listed]):
    """One page of a list, as every list of this API is paged."""

    data: list[Listed]
    has_more: bool = False


class OpenAIClient(AsyncOpenAI):
    """`AsyncOpenAI` without its retries, its reading of the environment and its guesses.

    Use it through `with_streaming_response` and one of `ask`, `pieces` and `listed`: what they raise is a
    `ProviderError` subclass. The library would send a request that creates a job three times, return an incomplete list,
    and fail with attribute errors when a proxy answers with a page.
    """

    def __init__(
        self,
        *,
        provider: str,
        model: str,
        api_key: str | None,
        base_url: str | None = None,
        deadlines: Deadlines | None = None,
        max_bytes: int = 256 << 20,
    ) -> None:
        self.provider, self.model = provider, model
        self.deadlines, self.max_bytes = deadlines or Deadlines(), max_bytes
        timeout = httpx2.Timeout(self.deadlines.silence, connect=self.deadlines.connect)
        self._key = None if api_key is None else require_key(provider, api_key)
        root, query = _without_query(address(provider, base_url))
        self._key_header = "api-key" if "api-version" in query else "authorization"
        super().__init__(
            api_key=self._key or "none",  # the library insists on one; `_send_our_key` decides what is sent
            base_url=root,
            default_query=query,
            max_retries=0,
            timeout=timeout,
            http_client=httpx2.AsyncClient(
                transport=OpenAITransport(provider),
                timeout=timeout,
                trust_env=False,
                follow_redirects=False,
                event_hooks={"request": [self._send_our_key], "response": [self._raise_refusal]},
            ),
        )
        # The library fills these from OPENAI_* and sends them to whatever host it is given.
        self.organization = self.project = self.admin_api_key = None
        self._custom_headers = {}

    async def ask(self, call: Call, kind: type[AnswerModel], *, uploads: bool = False) -> AnswerModel:
        """Return the whole answer to a call as `kind`, without any conversion. Raise `BadResponseError` for anything else.

        A call that `uploads` a file has no total deadline, only one for silence.
        """
        with self._connection_errors():
            async with asyncio.timeout(None if uploads else self.deadlines.total), call as response:
                body = await _read(response.http_response, self.max_bytes)
        if len(body) > self.max_bytes:
            raise BadResponseError(self.provider, f"the answer is longer than {self.max_bytes:,} bytes")
        if (hidden := hidden_refusal(self.provider, body, model=self.model, secret=self._key)) is not None:
            raise hidden
        return read_strictly(kind, body, self.provider)

    @asynccontextmanager
    async def sending(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncAPIResponse[Any]]:
        """Send exactly this body to an endpoint, for `ask`. The library's own calls add options that some servers refuse."""
        # the header makes the library return the open response, which its types do not tell
        response: Any = await self.post(
            path, cast_to=object, body=body, options={"headers": {"X-Stainless-Raw-Response": "stream"}}
        )
        try:
            yield response
        finally:
            await response.close()

    async def pieces(self, call: Call) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file as they arrive; there is no total deadline, only one for silence."""
        with self._connection_errors():
            async with call as response:
                if response.headers.get("content-type", "").startswith("text/html"):
                    raise BadResponseError(self.provider, "a web page came instead of a file: is a proxy in between?")
                async for piece in response.http_response.aiter_bytes():
                    yield piece

    async def listed(
        self, listing: Callable[..., Call], kind: type[Listed], **how: Any
    ) -> AsyncGenerator[Listed, None]:
        """Yield everything in a list, newest first, page by page."""
        after: str | Omit = omit
        while True:
            # `ListPage[kind]` is a class made at run time, which mypy can not follow
            page: ListPage[Listed] = await self.ask(listing(limit=PAGE_SIZE, after=after, **how), ListPage[kind])  # type: ignore[valid-type]
            for item in page.data:
                yield item
            if not page.has_more or not page.data:
                return
            if page.data[-1].id == after:
                raise BadResponseError(self.provider, f"the list repeats itself after {after!r}")
            after = page.data[-1].id

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        """Raise the `ProviderError` for what the library and its HTTP client raise inside."""
        try:
            yield
        except TimeoutError:
            raise TransientError(self.provider, f"no whole answer within {self.deadlines.total:g} s") from None
        except APIConnectionError as problem:
            raise self._connection_error(problem.__cause__ or problem) from None
        except (httpx2.RequestError, ssl.SSLError, EndOfStream) as problem:
            raise self._connection_error(problem) from None

    def _connection_error(self, problem: BaseException) -> ProviderError:
        said = str(problem) or repr(problem)
        match problem:
            case httpx2.ConnectTimeout():
                return TransientError(self.provider, f"{self.base_url} does not answer within the connect deadline")
            case httpx2.ConnectError():
                return TransientError(self.provider, f"{self.base_url} can not be reached ({said}): is it started?")
            case httpx2.TimeoutException():
                return TransientError(self.provider, f"nothing came or went for {self.deadlines.silence:g} s")
            case httpx2.DecodingError():
                return BadResponseError(self.provider, f"the answer can not be decompressed: {said}")
            case _:
                return TransientError(self.provider, f"the connection broke: {said}")

    async def _raise_refusal(self, response: httpx2.Response) -> None:
        """Raise what a status outside 2xx means, before the library reads all of the answer, however long."""
        if response.is_success:
            return
        body = (await _read(response, MOST_ERROR_BYTES))[:MOST_ERROR_BYTES]
        if response.is_redirect:
            body = f"it redirects to {response.headers.get('location')}, which is not followed".encode()
        raise refusal_error(
            self.provider, response.status_code, body, response.headers, model=self.model, secret=self._key
        )

    async def _send_our_key(self, request: httpx2.Request) -> None:
        """Send our key as the server reads it, or none; Azure takes its keys in a header of their own."""
        request.headers.pop("authorization", None)
        if self._key is not None:
            bearer = self._key_header == "authorization"
            request.headers[self._key_header] = f"Bearer {self._key}" if bearer else self._key


def _without_query(url: str) -> tuple[str, dict[str, str]]:
    """Return an API's address and what its query adds to every request, as Azure's `?api-version=…`."""
    parts = urlsplit(url)
    root = parts._replace(query="", fragment="", path=parts.path.rstrip("/").removesuffix("/embeddings"))
    return root.geturl(), dict(parse_qsl(parts.query))


def address(provider: str, base_url: str | None) -> str:
    """Return the API's address: `base_url`, with `/v1` where it has no path. Raise `ConfigError` for an invalid one."""
    given = require_address(provider, base_url or OPENAI_URL)
    parts = urlsplit(given)
    chosen = given if parts.path.strip("/") else parts._replace(path="/v1").geturl()
    try:
        httpx2.URL(chosen)
    except httpx2.InvalidURL as problem:
        raise ConfigError(provider, f"{given[:200]!r} is not an address: {problem}.") from None
    return chosen


async def _read(response: httpx2.Response, most: int) -> bytes:
    """Return the body, or a little more than `most` bytes of it."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > most:
            break
    return bytes(body)
