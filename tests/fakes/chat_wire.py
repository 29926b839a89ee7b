"""A talk with a chat model on the wire of OpenAI and of Gemini; what the model says is in `chat.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fakes import chat
from tests.fakes.openai_errors import refused
from tests.fakes.vectors import tokens

if TYPE_CHECKING:
    from tests.fakes.wire import Call


def is_openai_talk(asked: dict[str, Any]) -> bool:
    """Return whether this is a talk, and not a request to describe an image."""
    return all(isinstance(turn.get("content"), str) for turn in asked.get("messages", [])) and "messages" in asked


def openai(call: Call) -> dict[str, Any]:
    """Answer `POST /v1/chat/completions`. Raises `Refused` for an option that the server does not take."""
    for option in sorted(call.fake.chat_refuses & call.asked.keys()):
        raise refused(400, f"Unsupported parameter: '{option}' is not supported with this model.", param=option)
    shape = call.asked.get("response_format") or {}
    schema = (shape.get("json_schema") or {}).get("schema")
    said = chat.reply({"messages": call.asked["messages"], "format": schema}, call.fault)
    sent = sum(tokens(turn["content"]) for turn in call.asked["messages"])
    usage = {"prompt_tokens": sent, "completion_tokens": tokens(said), "total_tokens": sent + tokens(said)}
    message = {"role": "assistant", "content": said, "refusal": None}
    head = {"id": "chatcmpl-fake", "object": "chat.completion", "created": 1_767_225_600, "model": call.asked["model"]}
    return head | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def is_gemini_talk(asked: dict[str, Any]) -> bool:
    """Return whether this is a talk, and not a request to describe a file."""
    return "responseJsonSchema" in (asked.get("generationConfig") or {})


def gemini(call: Call, model: str) -> dict[str, Any]:
    """Answer `POST models/{model}:generateContent`."""
    turns = [{"role": turn["role"], "content": _text(turn)} for turn in call.asked["contents"]]
    said = chat.reply({"messages": turns, "format": call.asked["generationConfig"]["responseJsonSchema"]}, call.fault)
    sent = tokens(_text(call.asked["systemInstruction"])) + sum(tokens(turn["content"]) for turn in turns)
    usage = {"promptTokenCount": sent, "candidatesTokenCount": tokens(said)}
    usage["totalTokenCount"] = sum(usage.values())
    content = {"role": "model", "parts": [{"text": "Let me see.", "thought": True}, {"text": said}]}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}


def _text(turn: dict[str, Any]) -> str:
    return "".join(part["text"] for part in turn["parts"])
