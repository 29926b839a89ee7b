"""Telegram exports for the tests, good ones and bad ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SENTENCES = (
    "The deploy failed again because the migration holds a lock on the outbox table.",
    "We should retry the webhook with a growing pause, it answers 503 in the morning.",
    "Decided: photos go to object storage, PostgreSQL keeps the key and the checksum.",
    "Who knows why the replica is forty minutes behind since last night?",
)


def message(number: int, text: object | None = None, **changes: object) -> dict[str, Any]:
    """One message of an export; a field that is changed to None is left out."""
    found: dict[str, Any] = {
        "id": number,
        "type": "message",
        "date": f"2026-01-{1 + number % 28:02}T10:00:00",
        "date_unixtime": str(1_767_261_600 + number),
        "from": "Ada",
        "from_id": "user1",
        "text": f"{SENTENCES[number % 4]} Ticket {number}." if text is None else text,
    }
    return {name: value for name, value in (found | changes).items() if value is not None}


def export(messages: Sequence[object]) -> str:
    """Return the text of a result.json with one chat."""
    return json.dumps({"name": "Team", "type": "private_supergroup", "id": 77, "messages": list(messages)})


def write(folder: Path, messages: Sequence[object]) -> Path:
    """Write an export to a file."""
    path = folder / "result.json"
    path.write_text(export(messages))
    return path
