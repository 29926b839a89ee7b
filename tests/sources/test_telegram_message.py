"""One message, in the shape of an export and of the Bot API: what is taken, skipped and turned away, and why."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.extraction.message import IncomingMessage, RejectedMessage, SkippedMessage
from evervec.domain.text import is_blank
from evervec.sources.telegram.reader import bot_chat, parse_message

CHAT = "telegram:7"
PLACE = "chat 7, message 1"
GOOD: dict[str, Any] = {
    "id": 1,
    "type": "message",
    "date": "2026-03-02T10:00:00",
    "date_unixtime": "1772442000",
    "from": "Mara",
    "from_id": "user11",
    "text": "hello",
}


def parse(**changes: object) -> IncomingMessage | RejectedMessage | SkippedMessage:
    raw = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    return parse_message(raw, CHAT, PLACE)


def taken(**changes: object) -> IncomingMessage:
    message = parse(**changes)
    assert isinstance(message, IncomingMessage), message
    return message


def test_a_plain_message_is_taken_with_its_true_time() -> None:
    assert taken() == IncomingMessage(CHAT, "1", "Mara", datetime(2026, 3, 2, 9, 0, tzinfo=UTC), "hello")


def test_without_unix_time_the_local_date_is_read_as_utc() -> None:
    assert taken(date_unixtime=...).sent_at == datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def test_a_list_of_entities_is_joined_in_order() -> None:
    entities = ["run ", {"type": "code", "text": "nats stream ls"}, " see ", {"type": "link", "text": "https://x.test"}]
    assert taken(text=entities).text == "run nats stream ls see https://x.test"


def test_a_caption_is_the_text_of_its_photo() -> None:
    assert taken(photo="photos/photo_1.jpg", width=1280, text="the dashboard at 9:14").text == "the dashboard at 9:14"


def test_edits_replies_and_forwards_are_kept() -> None:
    message = taken(edited_unixtime="1772442060", reply_to_message_id=-5, forwarded_from="Ops channel")
    assert message.edited_at == datetime(2026, 3, 2, 9, 1, tzinfo=UTC)
    assert (message.reply_to, message.forwarded_from) == ("-5", "Ops channel")


def test_a_reply_into_another_chat_answers_nothing_here() -> None:
    assert taken(reply_to_message_id=5, reply_to_peer_id="channel99").reply_to is None


@pytest.mark.parametrize("edited", ["1970-01-01T01:00:00", "0", 0, "soon", None, [1]])
def test_never_edited_has_many_spellings(edited: object) -> None:
    assert taken(edited=edited).edited_at is None


@pytest.mark.parametrize(
    ("name", "author"), [(None, "user11"), ("", "user11"), ("  A\0da\nL. ", "Ada L."), (..., "user11")]
)
def test_an_author_without_a_name_goes_by_id(name: object, author: str) -> None:
    assert taken(**{"from": name}).author == author


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\0b", "ab"),
        ("\ud800", "\ufffd"),
        (["a\0", {"type": "bold", "text": "\udfff"}], "a\ufffd"),
        ("x" * 2**20, "x" * 2**20),
    ],
)
def test_text_is_made_storable_and_kept_whole(text: object, kept: str) -> None:
    assert taken(text=text).text == kept


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\ufeff", [], ["", {"type": "plain", "text": " "}], None, ...])
def test_blank_text_is_taken_and_stays_blank(text: object) -> None:
    assert is_blank(taken(text=text).text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": ...}, "it has no id"),
        ({"id": "one"}, "its id 'one' is not a whole number"),
        ({"id": True}, "its id True is not a whole number"),
        ({"id": 1.5}, "its id 1.5 is not a whole number"),
        ({"id": Decimal("1e999")}, "its id 1E+999 is not a whole number"),
        ({"id": 1 << 63}, "its id 9223372036854775808 is not a whole number"),
        ({"date": ..., "date_unixtime": ...}, "it has no date"),
        ({"date_unixtime": "884541351600"}, "its date '884541351600' is not a time between the years 1970 and 9999"),
        ({"date": "30000-01-01T00:00:00", "date_unixtime": ...}, "its date '30000-01-01T00:00:00' is not a time"),
        ({"date_unixtime": "-5"}, "its date '-5' is not a time"),
        ({"date_unixtime": 10**400}, "is not a time"),
        ({"date_unixtime": "hidden"}, "its date 'hidden' is not a time"),
        ({"date_unixtime": [1]}, "its date [1] is not a time"),
        ({"date": "0001-01-01T00:00:00+14:00", "date_unixtime": ...}, "is not a time"),
        ({"text": 12}, "its text is 12, neither a string nor a list"),
        ({"text": {"type": "bold"}}, "its text is {'type': 'bold'}, neither"),
        ({"text": ["a", 3]}, "a part of its text is 3, neither"),
        ({"text": [{"type": "bold"}]}, "a part of its text is {'type': 'bold'}, neither"),
    ],
)
def test_what_can_not_be_taken_says_why(changes: dict[str, object], reason: str) -> None:
    message = parse(**changes)
    assert isinstance(message, RejectedMessage)
    assert message.place == PLACE
    assert reason in message.reason


def test_service_and_unsupported_records_are_skipped() -> None:
    joined = parse(type="service", action="invite_members", text="", date=...)
    assert joined == SkippedMessage(PLACE, "service message (invite_members)")
    assert isinstance(parse_message({"id": 4, "type": "unsupported"}, CHAT, PLACE), SkippedMessage)


@pytest.mark.parametrize("raw", [None, 1, "text", [GOOD]])
def test_what_is_no_object_is_rejected(raw: object) -> None:
    assert parse_message(raw, CHAT, PLACE) == RejectedMessage(PLACE, "it is not an object")


BOT: dict[str, Any] = {
    "message_id": 17,
    "date": 1772442000,
    "from": {"id": 11, "is_bot": False, "first_name": "Mara", "last_name": "K."},
    "chat": {"id": -1001234567890, "type": "supergroup", "title": "Team"},
    "text": "hello",
}


def test_a_webhook_message_is_the_same_message_as_in_the_export() -> None:
    assert bot_chat(BOT) == "telegram:1234567890"
    assert bot_chat({"chat": {"id": -42}}) == "telegram:-42"
    assert bot_chat({"message_id": 1}) is None
    message = parse_message(BOT, "telegram:1234567890", PLACE)
    assert message == IncomingMessage(
        "telegram:1234567890", "17", "Mara K.", datetime(2026, 3, 2, 9, 0, tzinfo=UTC), "hello"
    )


def test_a_webhook_edit_reply_caption_and_forward_are_kept() -> None:
    raw = {key: value for key, value in BOT.items() if key != "text"} | {
        "caption": "the new board",
        "edit_date": 1772442060,
        "reply_to_message": {"message_id": 12},
        "forward_origin": {"type": "user", "sender_user": {"first_name": "Jo"}},
    }
    message = parse_message(raw, CHAT, PLACE)
    assert isinstance(message, IncomingMessage)
    assert (message.text, message.reply_to, message.forwarded_from) == ("the new board", "12", "Jo")
    assert message.edited_at == datetime(2026, 3, 2, 9, 1, tzinfo=UTC)


def test_a_webhook_service_message_is_skipped() -> None:
    raw = {key: value for key, value in BOT.items() if key != "text"} | {"new_chat_members": [{"id": 5}]}
    assert parse_message(raw, CHAT, PLACE) == SkippedMessage(PLACE, "service message (new_chat_members)")


JSON = st.recursive(
    st.just("service") | st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [*GOOD, *BOT, "action", "edited", "edited_unixtime", "reply_to_message", "forward_origin", "caption"]
)


@given(st.dictionaries(KEYS, JSON))
def test_no_json_at_all_makes_it_raise(changes: dict[str, object]) -> None:
    message = parse_message(GOOD | changes, CHAT, PLACE)
    if isinstance(message, IncomingMessage):
        message.text.encode()
        message.author.encode()
        assert message.sent_at.tzinfo is UTC
    else:
        message.reason.encode()
