"""One question to an Ollama chat model and its answer as text; the answer itself is judged elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evervec.errors import BadResponseError, TransientError
from evervec.vendors.ollama.client import OllamaClient, OllamaDeadlines


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
        self._client = OllamaClient(
            base_url,
            model,
            provider=provider,
            instead="a model that chats, for example llama3.1",
            api_key=api_key,
            deadlines=OllamaDeadlines(limits.connect, limits.next_token, limits.total, load=limits.total),
        )

    async def ask(self, messages: Sequence[Mapping[str, str]], schema: dict[str, Any]) -> str:
        """Return the model's answer, unchecked. Raise a `ProviderError` subclass."""
        parts: list[str] = []
        length, done = 0, False
        async with self._client.deadline():
            stream = await self._client.chat(
                model=self.model,
                messages=messages,
                format=schema,
                stream=True,
                options={"temperature": 0, "num_ctx": self.limits.context_tokens},
            )
            async for part in stream:
                parts.append(part.message.content or "")
                length, done = length + len(parts[-1]), bool(part.done)
                if length > self.limits.answer_chars:
                    raise BadResponseError(self.provider, f"the answer is longer than {length:,} characters")
        if not done:
            raise TransientError(self.provider, "the answer broke off")
        return "".join(parts)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
