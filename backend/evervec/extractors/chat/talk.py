"""What a vendor's chat model has to do for us: answer a talk with one JSON document of a form; knows no vendor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from evervec.domain.extraction.knowledge import ChatTokens

Talk = Sequence[Mapping[str, str]]
"""Turns with `role` (`system` first, then `user` and `assistant` in turns) and `content`."""

Form = type[BaseModel]
"""What an answer has to look like; the same schema is sent to every vendor."""


@dataclass(frozen=True)
class ChatLimits:
    """Seconds to connect, until the next token (a model may have to load first) and for a whole answer.

    `context_tokens` is what a talk and its answer may have together, `answer_chars` what an answer alone.
    """

    connect: float = 5.0
    next_token: float = 180.0
    total: float = 600.0
    context_tokens: int = 8192
    answer_chars: int = 200_000


@dataclass(frozen=True)
class ChatAnswer:
    """An answer as text, unchecked, and the tokens that the vendor counted."""

    text: str
    tokens: ChatTokens


class Chat(Protocol):
    """A chat model behind one vendor's API."""

    @property
    def provider(self) -> str:
        """Return the provider's name, for messages."""
        ...

    @property
    def limits(self) -> ChatLimits:
        """Return its deadlines and sizes."""
        ...

    async def ask(self, talk: Talk, form: Form) -> ChatAnswer:
        """Return the model's answer, unchecked. Raise a `ProviderError` subclass."""
        ...

    async def aclose(self) -> None:
        """Close the connections; may be called twice."""
        ...


def schema_of(form: Form) -> dict[str, Any]:
    """Return the JSON schema of a form. Every object is closed: OpenAI demands it, and the others understand it."""
    schema = form.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object":
            part["additionalProperties"] = False
    return schema
