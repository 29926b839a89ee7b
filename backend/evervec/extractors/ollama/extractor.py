"""The extractor that asks a chat model on an Ollama server: packs messages, asks, checks, repairs once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from evervec.domain.extraction.knowledge import (
    DatasetKnowledge,
    Extraction,
    KnownTopic,
    LinkDraft,
    MessageText,
    Score,
    TopicDraft,
)
from evervec.errors import BadResponseError
from evervec.extractors.ollama.answers import (
    ExtractionAnswer,
    ScoresAnswer,
    UnusableAnswerError,
    read_extraction,
    read_scores,
)
from evervec.extractors.ollama.chat import ChatLimits, OllamaChat
from evervec.extractors.ollama.document import batches, document

Read = TypeVar("Read")


class OllamaExtractor:
    """An extractor that asks a chat model, with a JSON schema in `format`, at temperature 0.

    The messages are sent as one JSON document, so that whatever they say stays data. A quarter of the model's context is
    for them, a quarter for what is known already, the rest for the task and the answer; a message that is longer is
    sent up to that length and marked `"cut": true`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        name: str = "ollama",
        limits: ChatLimits | None = None,
    ) -> None:
        limits = limits or ChatLimits()
        self._name = name
        self._budget = limits.context_tokens // 4
        self._chat = OllamaChat(base_url, model, provider=name, api_key=api_key, limits=limits)

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._name

    async def score(self, messages: Sequence[MessageText]) -> list[Score]:
        """Return one score per message, in order. Raise a `ProviderError` subclass."""
        scores: list[Score] = []
        for batch in batches(messages, self._budget):
            scores += await self._ask(
                "score", document(batch, self._budget), ScoresAnswer.model_json_schema(), _scores_of(batch)
            )
        return scores

    async def extract(self, messages: Sequence[MessageText], known: DatasetKnowledge) -> Extraction:
        """Return topics, atoms and links. Raise a `ProviderError`; `BadResponseError` when the repair failed too."""
        found = Extraction()
        for batch in batches(messages, self._budget):
            aware = _with_topics(known, found.topics)
            shown = document(batch, self._budget, aware)
            schema = ExtractionAnswer.model_json_schema()
            found = _joined(found, await self._ask("extract", shown, schema, _extraction_of(batch, aware)))
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._chat.aclose()

    async def _ask(self, task: str, shown: str, schema: dict[str, Any], read: Callable[[str], Read]) -> Read:
        """Ask, and ask once more with the reason when the answer can not be used."""
        talk = [{"role": "system", "content": prompt(task)}, {"role": "user", "content": shown}]
        answer = await self._chat.ask(talk, schema)
        try:
            return read(answer)
        except UnusableAnswerError as problem:
            repair = prompt("repair").replace("{reason}", str(problem))
        # The start of the answer shows the model what went wrong; all of a runaway one would fill its context.
        talk += [{"role": "assistant", "content": answer[: self._budget]}, {"role": "user", "content": repair}]
        try:
            return read(await self._chat.ask(talk, schema))
        except UnusableAnswerError as problem:
            raise BadResponseError(self._name, f"its answer was refused twice: {problem}") from None


@cache
def prompt(task: str) -> str:
    """Return the text of `prompts/<task>.md`."""
    return (files(__package__) / "prompts" / f"{task}.md").read_text("utf-8")


def _scores_of(batch: Sequence[MessageText]) -> Callable[[str], list[Score]]:
    return lambda answer: read_scores(answer, batch)


def _extraction_of(batch: Sequence[MessageText], known: DatasetKnowledge) -> Callable[[str], Extraction]:
    return lambda answer: read_extraction(answer, batch, known)


def _with_topics(known: DatasetKnowledge, found: Sequence[TopicDraft]) -> DatasetKnowledge:
    """Return what is known, with the topics that an earlier call of the same extraction named (id 0: not stored yet)."""
    return replace(known, topics=[*known.topics, *(KnownTopic(0, topic.name, topic.description) for topic in found)])


def _joined(first: Extraction, second: Extraction) -> Extraction:
    """Return both, with the second's links pointing to the new places of its atoms."""
    shift = len(first.atoms)
    moved = [_moved(link, shift) for link in second.links]
    return Extraction([*first.topics, *second.topics], [*first.atoms, *second.atoms], [*first.links, *moved])


def _moved(link: LinkDraft, shift: int) -> LinkDraft:
    target = None if link.target is None else link.target + shift
    return replace(link, source=link.source + shift, target=target)
