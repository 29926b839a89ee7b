"""The extractor that asks a chat model, whoever runs it: packs messages, asks, checks, repairs once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import TypeVar

from evervec.domain import usage
from evervec.domain.extraction.knowledge import (
    ChatTokens,
    DatasetKnowledge,
    Extraction,
    KnownTopic,
    LinkDraft,
    MessageText,
    Score,
    Scores,
    TopicDraft,
)
from evervec.errors import BadResponseError
from evervec.extractors.chat.answers import (
    ExtractionAnswer,
    ScoresAnswer,
    UnusableAnswerError,
    read_extraction,
    read_scores,
)
from evervec.extractors.chat.document import batches, document
from evervec.extractors.chat.talk import Chat, ChatAnswer, Form, Talk

Read = TypeVar("Read")
Reader = Callable[[str], Read]


class ChatExtractor:
    """An extractor that asks a chat model for JSON of one schema.

    The messages are sent as one JSON document, so that whatever they say stays data. A quarter of the model's context is
    for them, a quarter for what is known already, the rest for the task and the answer; a message that is longer is
    sent up to that length and marked `"cut": true`.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._budget = chat.limits.context_tokens // 4

    @property
    def name(self) -> str:
        """Return the provider's name, for messages."""
        return self._chat.provider

    async def score(self, messages: Sequence[MessageText]) -> Scores:
        """Return one score per message, in order. Raise a `ProviderError` subclass."""
        scores: list[Score] = []
        tokens = ChatTokens()
        for batch in batches(messages, self._budget):
            shown = document(batch, self._budget)
            found, used = await self._ask("score", shown, ScoresAnswer, partial(read_scores, messages=batch))
            scores, tokens = scores + found, tokens + used
        return Scores(scores, tokens)

    async def extract(self, messages: Sequence[MessageText], known: DatasetKnowledge) -> Extraction:
        """Return topics, atoms and links. Raise a `ProviderError`; `BadResponseError` when the repair failed too."""
        found, tokens = Extraction(), ChatTokens()
        for batch in batches(messages, self._budget):
            aware = _with_topics(known, found.topics)
            shown = document(batch, self._budget, aware)
            reader = partial(read_extraction, messages=batch, known=aware)
            more, used = await self._ask("extract", shown, ExtractionAnswer, reader)
            found, tokens = _joined(found, more), tokens + used
        return replace(found, tokens=tokens)

    async def _told(self, talk: Talk, form: Form) -> ChatAnswer:
        answer = await self._chat.ask(talk, form)
        usage.tell(answer.tokens.sent, answer.tokens.answered)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._chat.aclose()

    async def _ask(self, task: str, shown: str, form: Form, read: Reader[Read]) -> tuple[Read, ChatTokens]:
        """Ask, and ask once more with the reason when the answer can not be used."""
        talk = [{"role": "system", "content": prompt(task)}, {"role": "user", "content": shown}]
        answer = await self._told(talk, form)
        try:
            return read(answer.text), answer.tokens
        except UnusableAnswerError as problem:
            repair = prompt("repair").replace("{reason}", str(problem))
        # The start of the answer shows the model what went wrong; all of a runaway one would fill its context.
        said = answer.text[: self._budget] or "{}"
        talk += [{"role": "assistant", "content": said}, {"role": "user", "content": repair}]
        again = await self._told(talk, form)
        try:
            return read(again.text), answer.tokens + again.tokens
        except UnusableAnswerError as problem:
            raise BadResponseError(self.name, f"its answer was refused twice: {problem}") from None


@cache
def prompt(task: str) -> str:
    """Return the text of `prompts/<task>.md`."""
    return (files(__package__) / "prompts" / f"{task}.md").read_text("utf-8")


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
