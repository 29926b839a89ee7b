"""The lines of OpenAI's batch files, of requests and of results; opens no file and sends nothing."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

import orjson

from evervec.domain.batch import Line, MediaLine
from evervec.embedders.jsonl import LineReader, ResultGroup
from evervec.embedders.media_prompt import PROMPT
from evervec.errors import BadInputError
from evervec.vendors.openai.refusals import NO_HEADERS, refusal_error

EMBEDDINGS: Final = "/v1/embeddings"
CHAT: Final = "/v1/chat/completions"

IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
SOUNDS: Final[Mapping[str, str]] = {
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}

UNFINISHED_CODES: Final[Mapping[str, str]] = {
    "batch_expired": "expired",
    "batch_cancelled": "transient",
    "request_timeout": "transient",
}
"""OpenAI's codes of a line that it did not begin, and ours."""


def embedding_line(line: Line, provider: str, model: str, dimensions: int | None) -> bytes:
    """Return a line that asks for one vector. Raise `BadInputError` for a text that is not Unicode."""
    body: dict[str, Any] = {"model": model, "input": [line.text], "encoding_format": "float"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    try:
        return _line(line.key, EMBEDDINGS, body)
    except orjson.JSONEncodeError:
        raise BadInputError(provider, "a text holds a lone surrogate, which is not Unicode") from None


def media_line(line: MediaLine, provider: str, model: str) -> bytes:
    """Return a line that asks for a description. Raise `BadInputError` for a kind of media that no model of OpenAI takes."""
    media_type = line.media_type.partition(";")[0].strip().lower()
    if media_type in IMAGES:
        url = f"data:{media_type};base64,{b64encode(line.content).decode()}"
        part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
    elif media_type in SOUNDS:
        sound = {"data": b64encode(line.content).decode(), "format": SOUNDS[media_type]}
        part = {"type": "input_audio", "input_audio": sound}
    else:
        known = ", ".join(sorted({*IMAGES, *SOUNDS}))
        raise BadInputError(provider, f"{line.media_type!r} can not be described; what can be is {known}.")
    content = [{"type": "text", "text": PROMPT}, part]
    return _line(line.key, CHAT, {"model": model, "messages": [{"role": "user", "content": content}]})


def reader(provider: str, model: str, *, texts: bool) -> LineReader:
    """Return the function that reads one line of a result file or an error file, of vectors or of `texts`."""
    return lambda document, group: _read(document, group, provider, model, texts)


def _line(key: str, url: str, body: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {"custom_id": key, "method": "POST", "url": url, "body": body}, option=orjson.OPT_APPEND_NEWLINE
    )


def _read(document: dict[str, Any], group: ResultGroup, provider: str, model: str, texts: bool) -> None:
    """Read `{"custom_id", "response": {"status_code", "body"} | null, "error": {"code", "message"} | null}`."""
    key, error, response = document.get("custom_id"), document.get("error"), document.get("response")
    if not isinstance(key, str):
        return group.garbled()
    if isinstance(error, dict):
        return group.error(key, UNFINISHED_CODES.get(str(error.get("code")), "bad_response"), _said(error))
    status = response.get("status_code") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(status, int):
        return group.error(key, "bad_response", "the line holds neither an answer nor an error")
    body = response.get("body")
    if status != 200:
        problem = refusal_error(provider, status, _dumped(body), NO_HEADERS, model=model)
        return group.error(key, problem.code, problem.detail)
    return _read_text(key, body, group) if texts else group.vector(key, _vector(body))


def _dumped(body: object) -> bytes:
    """Return an error body as bytes; empty where a server wrote what is not JSON."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return b""


def _vector(body: object) -> object:
    """Return the one vector of an answer, or None."""
    data = body.get("data") if isinstance(body, dict) else None
    alone = data[0] if isinstance(data, list) and len(data) == 1 else None
    return alone.get("embedding") if isinstance(alone, dict) else None


def _read_text(key: str, body: object, group: ResultGroup) -> None:
    """Read `{"choices": [{"message": {"content", "refusal"}}]}`; a model that refuses a picture refuses it every time."""
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        return group.error(key, "bad_response", "the answer holds no message")
    if refused := message.get("refusal"):
        return group.error(key, "bad_input", str(refused))
    return group.text(key, message.get("content"))


def _said(error: dict[str, Any]) -> str:
    return str(error.get("message") or error.get("code") or "")
