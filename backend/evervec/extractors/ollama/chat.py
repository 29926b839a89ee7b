"""One question to an Ollama chat model and its answer as text; the answer itself is judged elsewhere."""

from evervec.domain.extraction.knowledge import ChatTokens
from evervec.errors import BadResponseError, TransientError
from evervec.extractors.chat.talk import ChatAnswer, ChatLimits, Form, Talk, schema_of
from evervec.vendors.ollama.client import OllamaClient, OllamaDeadlines


class OllamaChat:
    """`POST /api/chat` at temperature 0, streamed, so that a model that never stops is stopped by us.

    The context is asked of the server as num_ctx: its own default silently drops the start of a longer prompt.
    """

    def __init__(
        self, base_url: str, model: str, *, provider: str, api_key: str | None = None, limits: ChatLimits | None = None
    ) -> None:
        self.provider, self.limits = provider, limits or ChatLimits()
        self._model = model
        self._client = OllamaClient(
            base_url,
            model,
            provider=provider,
            instead="a model that chats, for example llama3.1",
            api_key=api_key,
            deadlines=OllamaDeadlines(
                self.limits.connect, self.limits.next_token, self.limits.total, load=self.limits.total
            ),
        )

    async def ask(self, talk: Talk, form: Form) -> ChatAnswer:
        """Return the model's answer, unchecked. Raise a `ProviderError` subclass."""
        parts: list[str] = []
        length, done, tokens = 0, False, ChatTokens()
        async with self._client.deadline():
            stream = await self._client.chat(
                model=self._model,
                messages=talk,
                format=schema_of(form),
                stream=True,
                options={"temperature": 0, "num_ctx": self.limits.context_tokens},
            )
            async for part in stream:
                parts.append(part.message.content or "")
                length, done = length + len(parts[-1]), bool(part.done)
                tokens += ChatTokens(part.prompt_eval_count or 0, part.eval_count or 0)
                if length > self.limits.answer_chars:
                    raise BadResponseError(self.provider, f"the answer is longer than {length:,} characters")
        if not done:
            raise TransientError(self.provider, "the answer broke off")
        return ChatAnswer("".join(parts), tokens)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
