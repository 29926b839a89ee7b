"""One question to a chat model of the Gemini API and its answer as text; the answer itself is judged elsewhere."""

from typing import Any, Final

from pydantic import BaseModel

from evervec.domain.extraction.knowledge import ChatTokens
from evervec.errors import BadResponseError
from evervec.extractors.chat.talk import ChatAnswer, ChatLimits, Form, Talk, schema_of
from evervec.vendors.gemini.client import VERSION, GeminiClient, require_model
from evervec.vendors.http import Deadlines, read_strictly

GEMINI_CHAT_LIMITS: Final = ChatLimits(context_tokens=32_768)
ROLES: Final = {"user": "user", "assistant": "model"}


class _Part(BaseModel):
    text: str = ""
    thought: bool = False


class _Content(BaseModel):
    parts: list[_Part] = []


class _Candidate(BaseModel):
    content: _Content = _Content()
    finishReason: str | None = None  # noqa: N815  # Google's spelling


class _Feedback(BaseModel):
    blockReason: str | None = None  # noqa: N815


class _Usage(BaseModel):
    promptTokenCount: int = 0  # noqa: N815
    candidatesTokenCount: int = 0  # noqa: N815
    thoughtsTokenCount: int = 0  # noqa: N815


class _Generated(BaseModel):
    candidates: list[_Candidate] = []
    promptFeedback: _Feedback = _Feedback()  # noqa: N815
    usageMetadata: _Usage = _Usage()  # noqa: N815


class GeminiChat:
    """`POST models/{model}:generateContent` with `responseJsonSchema`, at temperature 0."""

    def __init__(
        self, model: str, *, provider: str, api_key: str, base_url: str | None = None, limits: ChatLimits | None = None
    ) -> None:
        self.provider, self.limits = provider, limits or GEMINI_CHAT_LIMITS
        self._path = f"/{VERSION}/models/{require_model(provider, model)}:generateContent"
        # nothing comes before the whole answer is there: silence is as long as all of it
        deadlines = Deadlines(self.limits.connect, self.limits.total, self.limits.total)
        self._client = GeminiClient(
            base_url, provider=provider, api_key=api_key, deadlines=deadlines, max_bytes=4 * self.limits.answer_chars
        )

    async def ask(self, talk: Talk, form: Form) -> ChatAnswer:
        """Return the model's answer, unchecked. Raise a `ProviderError` subclass."""
        response = await self._client.request("POST", self._path, json=_request(talk, form))
        answer = read_strictly(_Generated, response.content, self.provider)
        usage = answer.usageMetadata
        tokens = ChatTokens(usage.promptTokenCount, usage.candidatesTokenCount + usage.thoughtsTokenCount)
        if not answer.candidates:
            reason = answer.promptFeedback.blockReason or "no reason given"
            raise BadResponseError(self.provider, f"the model does not answer: {reason}")
        first = answer.candidates[0]
        text = "".join(part.text for part in first.content.parts if not part.thought)
        if not text and first.finishReason not in (None, "STOP"):
            raise BadResponseError(self.provider, f"the model stopped without an answer: {first.finishReason}")
        return ChatAnswer(text, tokens)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _request(talk: Talk, form: Form) -> dict[str, Any]:
    system = [turn["content"] for turn in talk if turn["role"] == "system"]
    return {
        "systemInstruction": {"parts": [{"text": text} for text in system]},
        "contents": [
            {"role": ROLES[turn["role"]], "parts": [{"text": turn["content"]}]}
            for turn in talk
            if turn["role"] in ROLES
        ],
        "generationConfig": {
            "temperature": 0,
            "responseMimeType": "application/json",
            "responseJsonSchema": schema_of(form),
        },
    }
