"""One question to an Ollama chat model and its answer as text: deadlines, a size cap, answers put on the ladder."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from ollama import AsyncClient, ChatResponse, ResponseError

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

ERROR_BYTES = 4096


@dataclass(frozen=True)
class ChatLimits:
    """Seconds to connect, until the next token (a model may have to load first) and for a whole answer.

    `context_tokens` is asked of the server as num_ctx: its own default silently drops the start of a longer prompt.
    """

    connect: float = 5.0
    next_token: float = 180.0
    total: float = 600.0
    context_tokens: int = 8192
    answer_chars: int = 200_000


class OllamaChat:
    """`POST /api/chat` at temperature 0, streamed, so that a model that never stops is stopped by us."""

    def __init__(self, base_url: str, model: str, *, provider: str, api_key: str | None, limits: ChatLimits) -> None:
        self.provider, self.model, self.limits = provider, model, limits
        self._key, self._base_url = api_key, base_url
        self._client = AsyncClient(
            host=require_address(provider, base_url),
            headers={"authorization": f"Bearer {require_key(provider, api_key)}"} if api_key else {},
            timeout=httpx.Timeout(limits.next_token, connect=limits.connect),
            follow_redirects=False,
            trust_env=False,
            event_hooks={"request": [self._only_our_key], "response": [self._refuse]},
        )

    async def ask(self, messages: Sequence[Mapping[str, str]], schema: dict[str, Any]) -> str:
        """The model's answer. Raises a `ProviderError` subclass; the answer itself is not looked at here."""
        try:
            async with asyncio.timeout(self.limits.total):
                return await self._collect(messages, schema)
        except TimeoutError:
            raise TransientError(self.provider, f"no whole answer within {self.limits.total:g} s") from None
        except (ConnectionError, httpx.TransportError) as problem:
            raise TransientError(
                self.provider, f"{self._base_url} did not answer ({str(problem) or repr(problem)}): is it started?"
            ) from None
        except ResponseError as problem:  # an error line inside a stream that had begun well
            raise TransientError(self.provider, str(problem.error)) from None
        except ProviderError:
            raise
        except (ValueError, TypeError, AttributeError) as problem:
            # The library reads lines without checking them: HTML, a cut line and a bare list end here.
            raise BadResponseError(self.provider, f"the answer is not Ollama's ({type(problem).__name__})") from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]  # the library leaves it unannotated

    async def _collect(self, messages: Sequence[Mapping[str, str]], schema: dict[str, Any]) -> str:
        parts: list[str] = []
        length, last = 0, None
        stream = await self._client.chat(
            model=self.model,
            messages=messages,
            format=schema,
            stream=True,
            options={"temperature": 0, "num_ctx": self.limits.context_tokens},
        )
        async for last in stream:
            parts.append(last.message.content or "")
            length += len(parts[-1])
            if length > self.limits.answer_chars:
                raise BadResponseError(self.provider, f"the answer is longer than {length:,} characters")
        self._check_end(last)
        return "".join(parts)

    def _check_end(self, last: ChatResponse | None) -> None:
        if last is None or not last.done:
            raise TransientError(self.provider, "the answer broke off")

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise what a status outside 2xx means, while its headers are still at hand."""
        if 200 <= response.status_code < 300:
            return
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > ERROR_BYTES:
                break
        reason = reason_of(bytes(body), self._key)
        if "does not support" in reason:
            raise ConfigError(self.provider, f"{reason}. Choose a model that chats, for example llama3.1.")
        if response.status_code == 404 and "model" in reason:
            raise ConfigError(
                self.provider, f"model {self.model!r} is not there. Fetch it with `ollama pull {self.model}`."
            )
        raise from_answer(self.provider, response.status_code, reason, response.headers.get("retry-after"))

    async def _only_our_key(self, request: httpx.Request) -> None:
        """The library sends OLLAMA_API_KEY to whatever host it is given: a key is sent only where it was stored."""
        if not self._key:
            request.headers.pop("authorization", None)
