"""The lines of Gemini's batch files, of requests and of results; opens no file and sends nothing."""

from base64 import b64encode
from typing import Any, Final

import orjson

from evervec.domain.batch import Line, MediaLine
from evervec.embedders.jsonl import ResultGroup
from evervec.embedders.media_prompt import PROMPT
from evervec.errors import BadInputError
from evervec.vendors.http import says_too_long

DESCRIBED: Final = frozenset(
    {
        *("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "application/pdf"),
        *("audio/wav", "audio/mp3", "audio/mpeg", "audio/aiff", "audio/aac", "audio/ogg", "audio/flac"),
        *("video/mp4", "video/mpeg", "video/mov", "video/quicktime", "video/avi", "video/x-flv", "video/webm"),
        *("video/mpg", "video/wmv", "video/3gpp"),
    }
)
"""Kinds of media that Gemini's models take. https://ai.google.dev/gemini-api/docs/image-understanding (and audio, video)"""

_CODES: Final = {
    **dict.fromkeys((3, 400), "bad_input"),
    **dict.fromkeys((8, 429), "rate_limited"),
    **dict.fromkeys((4, 13, 14, 500, 503, 504), "transient"),
}
"""Numbers of gRPC and of HTTP: Google documents nowhere which of them a line has."""


DOCUMENT_TASK: Final = "RETRIEVAL_DOCUMENT"
"""https://ai.google.dev/gemini-api/docs/embeddings#task-types"""


def embedding_line(provider: str, line: Line, dimensions: int | None, task: str | None = None) -> bytes:
    """Return a line that asks for a vector. Raise `BadInputError` for a lone surrogate."""
    request: dict[str, Any] = {"content": {"parts": [{"text": line.text}]}}
    if dimensions is not None:
        request["output_dimensionality"] = dimensions
    if task is not None:
        request["task_type"] = task
    try:
        return orjson.dumps({"key": line.key, "request": request}, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        raise BadInputError(provider, "a text holds a lone surrogate, which is not Unicode") from None


def media_line(provider: str, line: MediaLine) -> bytes:
    """Return a line that asks for a description. Raise `BadInputError` for a kind of media that no model takes."""
    media_type = line.media_type.partition(";")[0].strip().lower()
    if media_type not in DESCRIBED:
        raise BadInputError(provider, f"it describes pictures, sounds, films and PDF, not {line.media_type!r}")
    data = {"mime_type": media_type, "data": b64encode(line.content).decode("ascii")}
    parts = [{"inline_data": data}, {"text": PROMPT}]
    asked = {"key": line.key, "request": {"contents": [{"role": "user", "parts": parts}]}}
    return orjson.dumps(asked, option=orjson.OPT_APPEND_NEWLINE)


def read(answer: dict[str, Any], group: ResultGroup) -> None:
    """Put one answered line into a group: `{"key", "response" | "error"}`; an error may also be inside `response`."""
    key, response = answer.get("key"), _object(answer.get("response"))
    error = answer.get("error") or response.get("error")
    if not isinstance(key, str):
        group.garbled()
    elif error:
        code, message = _error(error)
        group.error(key, code, message)
    elif "embedding" in response:
        group.vector(key, _object(response["embedding"]).get("values"))
    elif reason := _blocked(response):
        group.error(key, "bad_input", f"the model does not describe this: {reason}")
    else:
        group.text(key, _text(response))


def _error(error: object) -> tuple[str, str]:
    fields = _object(error)
    code = fields.get("code")
    our_code = _CODES.get(code, "bad_response") if isinstance(code, int) else "bad_response"
    message = str(fields.get("message", error))
    return "too_large" if our_code == "bad_input" and says_too_long(message) else our_code, message


def _blocked(response: dict[str, Any]) -> str | None:
    """Return why a model gave no text: its safety filter, before or while it wrote."""
    before = _object(response.get("promptFeedback")).get("blockReason")
    while_writing = _candidate(response).get("finishReason")
    reason = before or (while_writing if while_writing not in (None, "STOP", "MAX_TOKENS") else None)
    return str(reason) if reason and not _text(response) else None


def _text(response: dict[str, Any]) -> str | None:
    """Return what a model wrote, without its thoughts."""
    parts = _object(_candidate(response).get("content")).get("parts")
    written = [_object(part) for part in parts] if isinstance(parts, list) else []
    return "".join(str(part.get("text", "")) for part in written if not part.get("thought")).strip() or None


def _candidate(response: dict[str, Any]) -> dict[str, Any]:
    candidates = response.get("candidates")
    return _object(candidates[0]) if isinstance(candidates, list) and candidates else {}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
