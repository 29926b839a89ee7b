"""Reads Telegram messages, from Telegram Desktop exports and webhooks, as messages of the domain."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from evervec.domain.extraction.message import IncomingMessage, ReadMessage, RejectedMessage, SkippedMessage
from evervec.domain.text import clean, snippet
from evervec.sources.telegram import export_file, fields
from evervec.sources.telegram.export_stream import ExportStream, RawMessage
from evervec.sources.telegram.id_set import IdSet

# The Bot API has no type "service": such a message is recognised by its one field.
_SERVICE_FIELDS: Final = frozenset(
    {
        "new_chat_members",
        "left_chat_member",
        "new_chat_title",
        "new_chat_photo",
        "delete_chat_photo",
        "group_chat_created",
        "supergroup_chat_created",
        "channel_chat_created",
        "message_auto_delete_timer_changed",
        "migrate_to_chat_id",
        "migrate_from_chat_id",
        "pinned_message",
        "forum_topic_created",
        "forum_topic_edited",
        "forum_topic_closed",
        "forum_topic_reopened",
        "video_chat_scheduled",
        "video_chat_started",
        "video_chat_ended",
        "video_chat_participants_invited",
        "boost_added",
        "users_shared",
        "chat_shared",
        "write_access_allowed",
    }
)


def read_export(path: Path) -> Iterator[ReadMessage]:
    """Yield every message of a Telegram Desktop export (one chat, or a whole account), in the order of the file.

    Streams: memory does not grow with the file. Raises ExportError at the call when the file can not be an export, at
    the first `next` when it has no messages, and later where it is cut off or broken; the messages before that are
    valid.
    """
    export_file.check(path)
    return _read(path)


def parse_message(raw: object, chat: str, place: str) -> ReadMessage:
    """Read one message in the shape of an export or of the Bot API.

    `chat` is its chat's stable name (`bot_chat` gives it for a webhook), `place` says where it was found.
    """
    if not isinstance(raw, Mapping):
        return RejectedMessage(place, "it is not an object")
    if what := _service(raw):
        return SkippedMessage(place, what)
    try:
        return _incoming(raw, chat)
    except fields.FieldError as error:
        return RejectedMessage(place, str(error))


def bot_chat(raw: Mapping[str, object]) -> str | None:
    """Return the stable name of the chat that a Bot API message came from; None when the message has none."""
    chat = raw.get("chat")
    chat_id = chat.get("id") if isinstance(chat, Mapping) else None
    return fields.chat_name(chat_id) if isinstance(chat_id, int) else None


def _incoming(raw: fields.Raw, chat: str) -> IncomingMessage:
    return IncomingMessage(
        chat=chat,
        external_id=str(fields.message_id(raw)),
        author=fields.author(raw),
        sent_at=fields.sent_at(raw),
        text=fields.text(raw),
        edited_at=fields.edited_at(raw),
        reply_to=fields.reply_to(raw),
        forwarded_from=fields.forwarded_from(raw),
    )


def _service(raw: fields.Raw) -> str | None:
    """Return what kind of service record this is; None for a message that somebody wrote."""
    match raw.get("type"):
        case "service":
            return f"service message ({snippet(clean(str(raw.get('action', 'unknown'))), 60)})"
        case "unsupported":
            return "a kind of message that this Telegram could not export"
    found = _SERVICE_FIELDS.intersection(raw)
    return f"service message ({min(found)})" if found and "message_id" in raw else None


def _read(path: Path) -> Iterator[ReadMessage]:
    stream = ExportStream(path)
    seen: dict[str, IdSet] = {}
    for raw in stream:
        if raw.chat_id is None and not stream.in_account:
            raise export_file.without_chat_id(path)
        yield _checked(raw, seen)
    if stream.lists == 0:
        raise export_file.not_an_export(path)
    if stream.taken == 0:
        raise export_file.without_messages(path)


def _checked(raw: RawMessage, seen: dict[str, IdSet]) -> ReadMessage:
    """Return the message, unless its chat has no id or had the same message before."""
    place = _place(raw)
    if raw.chat_id is None:
        return RejectedMessage(place, "its chat has no id")
    chat = fields.chat_name(raw.chat_id)
    message = parse_message(raw.value, chat, place)
    if isinstance(message, IncomingMessage) and not seen.setdefault(chat, IdSet()).add(int(message.external_id)):
        return RejectedMessage(place, "its id was there before in this chat; the first message with it is kept")
    return message


def _place(raw: RawMessage) -> str:
    chat = "a chat without id" if raw.chat_id is None else f"chat {raw.chat_id}"
    own = raw.value.get("id") if isinstance(raw.value, Mapping) else None
    return f"{chat}, message {own}" if isinstance(own, int) else f"{chat}, message no. {raw.number}"
