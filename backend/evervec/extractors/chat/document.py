"""The JSON documents that a chat model is shown: messages in batches that fit its context; sends nothing."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from evervec.domain.extraction.knowledge import DatasetKnowledge, MessageText
from evervec.domain.text import clean, estimate_tokens

MESSAGES_A_CALL = 20


def batches(messages: Sequence[MessageText], budget: int) -> Iterator[list[MessageText]]:
    """Yield the messages in order, in batches that fit `budget` tokens: at least one message, at most MESSAGES_A_CALL."""
    batch: list[MessageText] = []
    used = 0
    for message in messages:
        tokens = estimate_tokens(message.text[: budget * 4])
        if batch and (used + tokens > budget or len(batch) == MESSAGES_A_CALL):
            yield batch
            batch, used = [], 0
        batch.append(message)
        used += tokens
    if batch:
        yield batch


def document(batch: Sequence[MessageText], budget: int, known: DatasetKnowledge | None = None) -> str:
    """Return the JSON document that a model is shown."""
    whole: dict[str, Any] = {"messages": [_entry(message, budget) for message in batch]}
    if known is not None:
        topics = [{"name": topic.name, "description": topic.description} for topic in known.topics]
        atoms = [{"id": atom.atom_id, "type": atom.type, "title": atom.title} for atom in known.atoms]
        whole["known_topics"] = _within(topics, budget // 2)
        whole["known_atoms"] = _within(atoms, budget // 2)
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2).decode()


def _entry(message: MessageText, budget: int) -> dict[str, Any]:
    text = clean(message.text)
    head = _head(text, budget)
    entry = {"id": message.message_id, "author": clean(message.author), "sent_at": message.sent_at, "text": head}
    return (
        entry | ({"reply_to": message.reply_to} if message.reply_to else {}) | ({"cut": True} if head != text else {})
    )


def _head(text: str, budget: int) -> str:
    """Return the longest beginning, by halves, that fits `budget` tokens."""
    text = text[: budget * 4]
    while len(text) > 1 and estimate_tokens(text) > budget:
        text = text[: len(text) // 2]
    return text


def _within(entries: Sequence[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """Return the first entries that fit `budget` tokens together."""
    kept = []
    for entry in entries:
        budget -= estimate_tokens(orjson.dumps(entry).decode())
        if budget < 0:
            break
        kept.append(entry)
    return kept
