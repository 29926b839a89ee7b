"""The messages of an export one after another, each with its chat, for files of any size."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ijson

from evervec.errors import ExportError
from evervec.sources.telegram import export_file
from evervec.sources.telegram.repair import RepairedBytes

_JsonEvent = tuple[str, str, Any]
_Node = dict[str, Any] | list[Any]

# Where a chat is in the file: the file itself, or an item of one of an account's two lists.
_CHATS: Final = frozenset({"", "chats.list.item", "left_chats.list.item"})
_IDS: Final = frozenset({"id", "chats.list.item.id", "left_chats.list.item.id"})
_LISTS: Final = frozenset({"messages", "chats.list.item.messages", "left_chats.list.item.messages"})
_MESSAGES: Final = frozenset(f"{place}.item" for place in _LISTS)
_OPENING: Final = frozenset({"start_map", "start_array"})
_CLOSING: Final = frozenset({"end_map", "end_array"})
_BUFFER: Final = 1 << 18
_CUT: Final = ("premature EOF", "Incomplete JSON content")


@dataclass(frozen=True, slots=True)
class RawMessage:
    """One item of a list of messages. `number` counts from 1 in its chat; `value` is any JSON value."""

    chat_id: int | None
    number: int
    value: object


class ExportStream:
    """An iterator over a file's RawMessages, to be used once; `lists` counts the lists of messages so far.

    Raises ExportError where the JSON ends or breaks, after every message before that place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lists = 0
        self.taken = 0
        self.in_account = False
        self._chat = -1
        self._chat_id: int | None = None
        self._late_ids: list[int | None] | None = None

    def __iter__(self) -> Iterator[RawMessage]:
        with self.path.open("rb") as file:
            source = RepairedBytes(file)
            try:
                yield from self._messages(ijson.parse(source, buf_size=_BUFFER))
            except (ijson.JSONError, ValueError) as error:
                raise self._stopped(source, error) from error

    def _messages(self, events: Iterator[_JsonEvent]) -> Iterator[RawMessage]:
        number = 0
        for event in events:
            if event[0] not in _MESSAGES:
                number = 0
                self._note(event)
            else:
                number += 1
                value = _value(event, events)
                self.taken += 1
                yield RawMessage(self._chat_id, number, value)

    def _note(self, event: _JsonEvent) -> None:
        """Keep track of the chat that the parser is in."""
        place, kind, value = event
        if kind == "start_map" and place in _CHATS:
            self._chat += 1
            self._chat_id = None
            self.in_account = place != ""
        elif place in _IDS:
            self._chat_id = _whole_number(value)
        elif kind == "start_array" and place in _LISTS:
            self.lists += 1
            if self._chat_id is None:
                self._chat_id = self._late_id()

    def _late_id(self) -> int | None:
        """Return the id of a chat whose messages come first, found by reading ahead through the file, once."""
        if self._late_ids is None:
            self._late_ids = _chat_ids(self.path)
        return self._late_ids[self._chat] if self._chat < len(self._late_ids) else None

    def _stopped(self, source: RepairedBytes, error: Exception) -> ExportError:
        if source.ended and any(sign in str(error) for sign in _CUT):
            return export_file.cut_off(self.path, taken=self.taken, position=source.position)
        detail = str(error).partition("\n")[0]
        return export_file.broken(self.path, taken=self.taken, position=source.position, detail=detail)


def _value(event: _JsonEvent, events: Iterator[_JsonEvent]) -> object:
    """Return the whole JSON value that begins with `event`. No recursion: a hostile file may nest without limit."""
    _, kind, value = event
    if kind not in _OPENING:
        return value
    node = root = _empty(kind)
    above: list[_Node] = []
    key = ""
    for _, kind, value in events:
        if kind == "map_key":
            key = value
        elif kind in _CLOSING:
            if not above:
                break
            node = above.pop()
        else:
            child = _empty(kind) if kind in _OPENING else value
            if isinstance(node, dict):
                node[key] = child
            else:
                node.append(child)
            if kind in _OPENING:
                above.append(node)
                node = child
    return root


def _empty(kind: str) -> _Node:
    return {} if kind == "start_map" else []


def _chat_ids(path: Path) -> list[int | None]:
    """Return the id of every chat of the file in order, as far as the file can be read."""
    ids: list[int | None] = []
    with path.open("rb") as file, suppress(ijson.JSONError, ValueError):
        for place, kind, value in ijson.parse(RepairedBytes(file), buf_size=_BUFFER):
            if kind == "start_map" and place in _CHATS:
                ids.append(None)
            elif place in _IDS and ids:
                ids[-1] = _whole_number(value)
    return ids


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
