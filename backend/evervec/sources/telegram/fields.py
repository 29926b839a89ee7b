"""The single fields of a Telegram message, in the shapes of the export and the Bot API."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeGuard

from evervec.domain.text import clean, snippet

Raw = Mapping[str, object]

_NOBODY: Final = "unknown"
_ID_LIMIT: Final = 1 << 63
_CHANNEL_OFFSET: Final = 10**12


class FieldError(ValueError):
    """A field without which a message can not be imported; the text is the reason shown to people."""


def message_id(raw: Raw) -> int:
    """Return the id inside the chat; negative ones are valid: messages from before a group became a supergroup."""
    value = raw.get("id", raw.get("message_id"))
    if value is None:
        raise FieldError("it has no id")
    if not _is_id(value):
        raise FieldError(f"its id {_shown(value)} is not a whole number")
    return value


def chat_name(chat_id: int) -> str:
    """Return the stable name of a chat. The Bot API's -100… id of a channel becomes the id that exports use."""
    if chat_id <= -_CHANNEL_OFFSET:
        chat_id = -chat_id - _CHANNEL_OFFSET
    return f"telegram:{chat_id}"


def sent_at(raw: Raw) -> datetime:
    """Return when it was sent, in UTC.

    `date` of an export is local time without a zone, so `date_unixtime` goes first.
    """
    value = raw.get("date_unixtime")
    value = raw.get("date") if value is None else value
    if value is None:
        raise FieldError("it has no date")
    try:
        return _instant(value)
    except (ValueError, OverflowError, OSError):
        raise FieldError(f"its date {_shown(value)} is not a time between the years 1970 and 9999") from None


def edited_at(raw: Raw) -> datetime | None:
    """Return when it was last edited. Older exports write 1970 for never; an unreadable time counts as never."""
    value = raw.get("edited_unixtime") or raw.get("edited") or raw.get("edit_date")
    try:
        edited = _instant(value)
    except (ValueError, OverflowError, OSError):
        return None
    return edited if edited.year > 1970 else None


def text(raw: Raw) -> str:
    """Return the text or caption: a string, or a list of strings and entities, joined and cleaned."""
    value = raw.get("text")
    value = raw.get("caption") if value is None else value
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    if not isinstance(value, list):
        raise FieldError(f"its text is {_shown(value)}, neither a string nor a list")
    return clean("".join(_part(part) for part in value))


def author(raw: Raw) -> str:
    """Return the author's name, or the id of an author without one (a deleted account)."""
    for key in ("from", "sender_chat", "actor"):
        if name := _name(raw.get(key)):
            return name
    return _name(raw.get("from_id")) or _NOBODY


def reply_to(raw: Raw) -> str | None:
    """Return the id of the message that it answers, if that is in the same chat."""
    if raw.get("reply_to_peer_id") is not None:
        return None
    answered = raw.get("reply_to_message")
    value = answered.get("message_id") if isinstance(answered, dict) else raw.get("reply_to_message_id")
    return str(value) if _is_id(value) else None


def forwarded_from(raw: Raw) -> str | None:
    """Return the author of the original, when it was forwarded."""
    origin = raw.get("forward_origin")
    if isinstance(origin, dict):
        keys = ("sender_user", "sender_user_name", "sender_chat", "chat")
        return next((name for key in keys if (name := _name(origin.get(key)))), None)
    return _name(raw.get("forwarded_from"))


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -_ID_LIMIT <= value < _ID_LIMIT


def _instant(value: object) -> datetime:
    """Parse seconds since 1970 as a number or in digits, or ISO 8601. Raises ValueError, OverflowError or OSError."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(value)
    if isinstance(value, str) and not value.removeprefix("-").isdecimal():
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    else:
        moment = datetime.fromtimestamp(int(value), UTC)
    if moment.year < 1970:
        raise ValueError(value)
    return moment


def _part(part: object) -> str:
    """Return the text of one piece of a list: plain, or an entity (bold, code, link …)."""
    inner = part.get("text") if isinstance(part, dict) else part
    if not isinstance(inner, str):
        raise FieldError(f"a part of its text is {_shown(part)}, neither a string nor an entity with text")
    return inner


def _name(value: object) -> str | None:
    """Return a name as the export writes it (a string) or as the Bot API does (a user or chat object)."""
    if isinstance(value, dict):
        names = (value.get("first_name"), value.get("last_name"))
        full = " ".join(name for name in names if isinstance(name, str) and name)
        value = full or value.get("title") or value.get("username") or value.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return " ".join(clean(value).split()) or None if isinstance(value, str) else None


def _shown(value: object) -> str:
    """Return a value for a reason: short and printable."""
    return snippet(str(value) if isinstance(value, Decimal) else repr(value), 60)
