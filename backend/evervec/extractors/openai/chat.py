"""One question to a chat model of OpenAI, or of a compatible server, and its answer as text; it is judged elsewhere."""

from typing import Any, Final

import orjson
from openai import omit
from pydantic import BaseModel, Field

from evervec.domain.extraction.knowledge import ChatTokens
from evervec.errors import BadInputError, BadResponseError, ConfigError
from evervec.extractors.chat.talk import ChatAnswer, ChatLimits, Form, Talk, schema_of
from evervec.vendors.http import Deadlines
from evervec.vendors.openai.client import OpenAIClient

OPENAI_CHAT_LIMITS: Final = ChatLimits(context_tokens=32_768)

OPTIONS: Final = {"response_format": ("response_format", "json_schema"), "temperature": ("temperature",)}
"""What a server may not take, and the words by which its refusal says so."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class OpenAIChat:
    """`POST /v1/chat/completions` with `response_format` json_schema, strict, at temperature 0.

    An option that the server refuses by name is left out from then on; without the format the schema stands in the prompt.
    """

    def __init__(
        self,
        model: str,
        *,
        provider: str,
        api_key: str | None,
        base_url: str | None = None,
        limits: ChatLimits | None = None,
    ) -> None:
        self.provider, self.limits = provider, limits or OPENAI_CHAT_LIMITS
        self._model = model
        self._left_out: set[str] = set()
        # nothing comes before the whole answer is there: silence is as long as all of it
        deadlines = Deadlines(self.limits.connect, self.limits.total, self.limits.total)
        self._client = OpenAIClient(
            provider=provider,
            model=model,
            api_key=api_key,
            base_url=base_url,
            deadlines=deadlines,
            max_bytes=4 * self.limits.answer_chars,
        )

    async def ask(self, talk: Talk, form: Form) -> ChatAnswer:
        """Return the model's answer, unchecked. Raise a `ProviderError` subclass."""
        while True:
            try:
                return await self._ask(talk, form)
            except (BadInputError, ConfigError) as problem:
                refused = _named(problem.detail) - self._left_out
                if not refused:
                    raise
                self._left_out |= refused

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, talk: Talk, form: Form) -> ChatAnswer:
        schema = schema_of(form)
        shaped: Any = {"type": "json_schema", "json_schema": {"name": form.__name__, "schema": schema, "strict": True}}
        if "response_format" in self._left_out:
            first, *rest = talk
            told = f"{first['content']}\nThe JSON schema of the answer:\n{orjson.dumps(schema).decode()}"
            talk, shaped = [{**first, "content": told}, *rest], omit
        messages: Any = list(talk)  # the library wants a class a role
        call = self._client.chat.completions.with_streaming_response.create(
            model=self._model,
            messages=messages,
            response_format=shaped,
            temperature=omit if "temperature" in self._left_out else 0,
        )
        answer = await self._client.ask(call, _Completion)
        message, usage = answer.choices[0].message, answer.usage or _Usage()
        if message.refusal:
            raise BadResponseError(self.provider, f"the model refuses: {message.refusal[:200]}")
        return ChatAnswer(message.content or "", ChatTokens(usage.prompt_tokens, usage.completion_tokens))


def _named(reason: str) -> set[str]:
    """Return the options that a refusal names."""
    words = reason.lower()
    return {option for option, marks in OPTIONS.items() if any(mark in words for mark in marks)}
