"""The fake's chat model: rules instead of a model, which read the document of the extractor and fill its schema."""

from collections.abc import Collection
from typing import Any

import orjson

from tests.fakes.faults import Fault

ATOM_CHARS = 40
TYPES = (
    ("problem", ("bug", "error", "fail", "crash", "broken", "stuck")),
    ("solution", ("fix", "solved", "workaround")),
    ("decision", ("decided", "decision", "let's")),
    ("risk", ("risk", "danger")),
    ("blocker", ("blocked", "blocker", "waiting for")),
    ("requirement", ("must", "require")),
    ("idea", ("idea", "maybe", "could")),
    ("question", ("?",)),
)


def reply(asked: dict[str, Any], fault: Fault | None) -> str:
    """Return the model's reply: JSON that fits the requested schema, or what the fault makes of it."""
    document = _document(asked)
    fields = (asked.get("format") or {}).get("properties") or _told(asked)
    answer = score(document) if "scores" in fields else extract(document) if "atoms" in fields else {"echo": True}
    match fault:
        case Fault.CHAT_GARBAGE:
            return "Sure! Here is what I found in the chat: not much."
        case Fault.CHAT_CUT_JSON:
            return orjson.dumps(answer).decode()[:-2]
        case Fault.CHAT_WRONG_SCHEMA:
            return '{"scores": [{"id": "one", "value": 7}], "atoms": [{"type": "poem"}], "topics": [], "links": []}'
        case Fault.CHAT_UNKNOWN_IDS:
            return orjson.dumps(_with_unknown_ids(answer)).decode()
        case Fault.CHAT_ENDLESS:
            return "{" + " " * 1_000_000
        case _:
            return orjson.dumps(answer).decode()


def score(document: dict[str, Any]) -> dict[str, Any]:
    """Score a message: the longer it is, the higher."""
    scores = []
    for message in document.get("messages", []):
        value = min(1.0, len(message["text"]) / 200)
        signal = "signal" if value >= 0.5 else "weak_signal" if value >= 0.2 else "noise"
        factors = [{"name": "length", "share": value}]
        scores.append({"id": message["id"], "value": value, "signal": signal, "factors": factors})
    return {"scores": scores}


def extract(document: dict[str, Any]) -> dict[str, Any]:
    """Extract one atom per message over ATOM_CHARS, its type by keyword; a solution solves the problem before it."""
    atoms: list[dict[str, Any]] = []
    links = []
    for message in document.get("messages", []):
        if len(message["text"]) <= ATOM_CHARS:
            continue
        kind = _type(message["text"])
        problem = next((i for i in reversed(range(len(atoms))) if atoms[i]["type"] == "problem"), None)
        if kind == "solution" and problem is not None:
            link = {"source": len(atoms), "type": "solves", "confidence": 0.7, "target": problem}
            links.append(link | {"target_atom_id": None})
        atoms.append(_atom(message, kind))
    names = dict.fromkeys(atom["topic"] for atom in atoms)
    topics = [{"name": name, "description": f"Messages that state a {name.lower()}."} for name in names]
    return {"topics": topics, "atoms": atoms, "links": links}


def _atom(message: dict[str, Any], kind: str) -> dict[str, Any]:
    text = " ".join(message["text"].split())
    return {
        "type": kind,
        "title": text[:60],
        "content": text[:500],
        "confidence": 0.8,
        "message_ids": [message["id"]],
        "topic": kind.capitalize(),
    }


def _type(text: str) -> str:
    lower = text.lower()
    return next((kind for kind, words in TYPES if any(word in lower for word in words)), "insight")


def _told(asked: dict[str, Any]) -> Collection[str]:
    """Return the fields that the system's turn asks for, where no schema is sent."""
    told = next((turn["content"] for turn in asked.get("messages", []) if turn.get("role") == "system"), "")
    return [field for field in ("scores", "atoms") if f'"{field}"' in told]


def _document(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON document of the first user message."""
    for message in asked.get("messages", []):
        if message.get("role") == "user":
            try:
                found = orjson.loads(message.get("content", ""))
            except orjson.JSONDecodeError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _with_unknown_ids(answer: dict[str, Any]) -> dict[str, Any]:
    for entry in answer.get("scores", []):
        entry["id"] += 1_000_000
    for atom in answer.get("atoms", []):
        atom["message_ids"] = [1_000_000]
    return answer
