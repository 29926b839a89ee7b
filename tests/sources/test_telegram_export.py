"""Whole export files: shapes, streaming, duplicates, and every way in which a file can be unusable."""

import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evervec.domain.extraction.message import IncomingMessage, ReadMessage, RejectedMessage, SkippedMessage
from evervec.errors import ExportError
from evervec.sources.telegram.reader import read_export

Export = Callable[[object], Path]


def message(number: int, text: object = "hello") -> dict[str, Any]:
    return {"id": number, "type": "message", "date_unixtime": "1772442000", "from": "Mara", "text": text}


def chat(messages: Sequence[object], chat_id: object = 7) -> dict[str, Any]:
    return {"name": "Team", "type": "private_group", "id": chat_id, "messages": list(messages)}


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Write text, bytes or anything JSON to a file."""

    def write(content: object) -> Path:
        path = tmp_path / "result.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1))
        return path

    return write


def ids(messages: Sequence[ReadMessage]) -> list[tuple[str, str]]:
    return [(found.chat, found.external_id) for found in messages if isinstance(found, IncomingMessage)]


def test_one_chat_is_read_in_order_and_service_messages_are_counted(export: Export) -> None:
    found = list(
        read_export(export(chat([message(1), {"id": 2, "type": "service", "action": "pin_message"}, message(3)])))
    )
    assert ids(found) == [("telegram:7", "1"), ("telegram:7", "3")]
    assert found[1] == SkippedMessage("chat 7, message 2", "service message (pin_message)")


def test_a_whole_account_is_read_with_the_chats_that_were_left(export: Export) -> None:
    account = {
        "about": "Here is the data you requested.",
        "personal_information": {"user_id": 1, "messages": ["not", "these"]},
        "contacts": {"about": "", "list": [{"id": 5, "messages": [message(9)]}]},
        "chats": {"about": "", "list": [chat([message(1)]), chat([], 8), chat([message(1), message(2)], 9)]},
        "left_chats": {"about": "", "list": [chat([message(4)], 10)]},
    }
    assert ids(list(read_export(export(account)))) == [
        ("telegram:7", "1"),
        ("telegram:9", "1"),
        ("telegram:9", "2"),
        ("telegram:10", "4"),
    ]


def test_the_id_of_a_chat_may_come_after_its_messages(export: Export) -> None:
    late = [dict(reversed(chat([message(1), message(2)], number).items())) for number in (7, 8)]
    assert ids(list(read_export(export(late[0])))) == [("telegram:7", "1"), ("telegram:7", "2")]
    account = {"left_chats": {"list": [late[1]]}, "chats": {"list": [chat([message(5)], 6), late[0]]}}
    assert [place for place, _ in ids(list(read_export(export(account))))] == [
        "telegram:8",
        "telegram:8",
        "telegram:6",
        "telegram:7",
        "telegram:7",
    ]


def test_one_bad_message_never_stops_the_others(export: Export) -> None:
    bad: list[object] = [
        {"type": "message"},
        5,
        ["x"],
        message(4, 5),
        message(1),
        {**message(6), "date_unixtime": 10**30},
    ]
    found = list(read_export(export(chat([message(1), *bad, message(8)]))))
    assert ids(found) == [("telegram:7", "1"), ("telegram:7", "8")]
    assert [rejected.place for rejected in found if isinstance(rejected, RejectedMessage)] == [
        "chat 7, message no. 2",
        "chat 7, message no. 3",
        "chat 7, message no. 4",
        "chat 7, message 4",
        "chat 7, message 1",
        "chat 7, message 6",
    ]


def test_the_second_message_with_an_id_is_rejected_but_the_same_id_in_another_chat_is_not(export: Export) -> None:
    account = {"chats": {"list": [chat([message(2), message(1), message(2, "again")]), chat([message(2)], 8)]}}
    found = list(read_export(export(account)))
    assert ids(found) == [("telegram:7", "2"), ("telegram:7", "1"), ("telegram:8", "2")]
    assert isinstance(found[2], RejectedMessage)
    assert "there before" in found[2].reason


def test_a_chat_without_id_costs_an_account_only_its_own_messages(export: Export) -> None:
    account = {"chats": {"list": [chat([message(1)], None), chat([message(2)], 8)]}}
    found = list(read_export(export(account)))
    assert found[0] == RejectedMessage("a chat without id, message 1", "its chat has no id")
    assert ids(found) == [("telegram:8", "2")]


def test_numbers_escapes_and_bytes_that_break_a_parser_cost_one_message_at_most(export: Export) -> None:
    parts = [
        rb'{"id": 1, "date_unixtime": "1772442000", "text": "lone \udc00 and \x01 and \ud83d\ude00"}',
        rb'{"id": 1e999, "date_unixtime": "1772442000", "text": "x"}',
        b'{"id": %s, "date_unixtime": "1772442000", "text": "x"}' % (b"9" * 200),
        b'{"id": 2, "date_unixtime": NaN, "text": "x"}',
        b'{"id": 3, "date_unixtime": "1772442000", "text": "caf\xe9 \x00"}',
        b'{"id": 4, "date_unixtime": "1772442000", "text": "x", "deep": ' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    ]
    found = list(read_export(export(b'{"id": 7, "messages": [' + b", ".join(parts) + b"]}")))
    texts = [taken.text for taken in found if isinstance(taken, IncomingMessage)]
    assert texts == ["lone \ufffd and \x01 and 😀", "caf\ufffd ", "x"]
    assert len(found) == 6


def test_a_megabyte_of_text_is_kept_whole_and_a_byte_order_mark_does_no_harm(export: Export) -> None:
    text = "überlang " * 120_000
    data = json.dumps(chat([message(1, text)]), ensure_ascii=False).encode()
    (found,) = read_export(export(b"\xef\xbb\xbf" + data))
    assert isinstance(found, IncomingMessage)
    assert found.text == text


UNUSABLE: dict[str, tuple[object, str]] = {
    "empty file": (b"", "the file is empty"),
    "white space": (b" \n ", "the file is empty"),
    "plain text": (b"hello", "this is not JSON"),
    "html": (b"<!DOCTYPE html>", "this is an HTML page"),
    "zip": (b"PK\x03\x04....", "this is an archive"),
    "utf-16": (json.dumps(chat([message(1)])).encode("utf-16"), "is UTF-16"),
    "utf-16 without mark": (json.dumps(chat([message(1)])).encode("utf-16-le"), "is UTF-16"),
    "broken": (b'{"id": 7, oops', "the JSON is broken before byte 14"),
    "another json": ({"rows": [1, 2]}, "no list of messages in it"),
    "a json list": ([1, 2], "no list of messages in it"),
    "no message list": ({"name": "Team", "id": 7}, "no list of messages in it"),
    "no messages": (chat([]), "holds no messages"),
    "no messages in any chat": ({"chats": {"list": [chat([]), chat([], 8)]}}, "holds no messages"),
    "no chat id": ({"name": "Team", "messages": [message(1)]}, 'has no "id"'),
    "cut before the first message": (b'{"id": 7, "messages": [{"id": 1, "te', "is cut off at byte 36"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_refused_before_anything_is_taken(case: str, export: Export) -> None:
    content, reason = UNUSABLE[case]
    path = export(content)
    with pytest.raises(ExportError) as caught:
        next(read_export(path))
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert reason in told
    assert told.endswith("Nothing was imported.")
    assert "\n" not in told


def test_a_path_that_is_no_readable_file_is_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such file"):
        read_export(tmp_path / "result.json")
    with pytest.raises(ExportError, match=r"folder. Give the result\.json inside"):
        read_export(tmp_path)
    with pytest.raises(ExportError, match="can not be read"):
        read_export(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="a pipe"):
        read_export(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused_at_the_call(export: Export) -> None:
    path = export(chat([message(1)]))
    path.chmod(0)
    with pytest.raises(ExportError, match="Make it readable"):
        read_export(path)


@pytest.mark.parametrize("indent", [None, 1])
def test_what_came_before_a_cut_is_kept_and_the_error_says_how_to_go_on(export: Export, indent: int | None) -> None:
    whole = json.dumps(chat([message(number) for number in range(1, 4001)]), indent=indent).encode()
    path = export(whole[: len(whole) // 2])
    found: list[ReadMessage] = []
    with pytest.raises(ExportError) as caught:
        found.extend(read_export(path))
    assert 1900 < len(found) < 2010
    assert ids(found)[-1] == ("telegram:7", str(len(found)))
    told = str(caught.value)
    assert (
        f"cut off at byte {len(whole) // 2:,}. The {len(found):,} messages before that were read and are kept" in told
    )
    assert "importing twice changes nothing" in told
    assert "Nothing was imported" not in told


def test_what_came_before_a_broken_place_is_kept(export: Export) -> None:
    whole = json.dumps(chat([message(1), message(2)]), indent=1).encode()
    path = export(whole.replace(b'"id": 2', b'"id": two'))
    stream = read_export(path)
    assert isinstance(next(stream), IncomingMessage)
    with pytest.raises(ExportError, match=r"broken before byte .*The 1 message before that were read"):
        next(stream)


def test_twenty_megabytes_are_read_within_a_few(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    count = 20_000
    with path.open("w") as file:
        file.write('{"id": 7, "messages": [\n')
        for number in range(1, count + 1):
            file.write(json.dumps(message(number, "the relay fell behind " * 45)) + (",\n" if number < count else "\n"))
        file.write("]}")
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    kinds = Counter(type(found) for found in read_export(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kinds == {IncomingMessage: count}
    assert peak < 6_000_000
