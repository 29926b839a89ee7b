"""A message as a source reads it, and the reasons why one is rejected or skipped."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message of a source. `chat` and `external_id` together are its identity inside a dataset.

    `text` is what PostgreSQL can store (no NUL, no lone surrogates) and may be blank; times are aware, in UTC.
    `reply_to` is an `external_id` of the same chat. `forwarded_from` names who wrote it first.
    """

    chat: str
    external_id: str
    author: str
    sent_at: datetime
    text: str
    edited_at: datetime | None = None
    reply_to: str | None = None
    forwarded_from: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message that could not be read. `place` finds it in the source, `reason` says what is wrong with it."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class SkippedMessage:
    """A record that is no message: somebody joined, a title changed. It is counted, and never an error."""

    place: str
    reason: str


ReadMessage = IncomingMessage | RejectedMessage | SkippedMessage
"""The result of reading one record of a source."""
