"""One line of an OpenAI batch, read and answered; online requests are read by the same functions."""

from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import numpy as np
import orjson

from tests.fakes import spoiling
from tests.fakes.jobs import Job, Line
from tests.fakes.results import Verdict, vectors
from tests.fakes.vectors import describe_digest, tokens

MOST_INPUTS = 2048
MOST_TOKENS = 8192
MOST_TOGETHER = 300_000


def wanted(key: str, body: dict[str, Any]) -> Line:
    """Parse a request to embed."""
    given = body.get("input")
    texts = (given,) if isinstance(given, str) else tuple(given or ())
    dims, base64 = body.get("dimensions"), body.get("encoding_format") == "base64"
    if not all(isinstance(text, str) for text in texts):
        return Line(key, (), dims, base64, "'$.input' is invalid. Please check the API reference.")
    return Line(key, texts, dims, base64, _problem(texts))


def _problem(texts: tuple[str, ...]) -> str | None:
    if not texts or not all(texts):
        return "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
    if len(texts) > MOST_INPUTS:
        return f"Invalid 'input': array too long. Expected an array with maximum length {MOST_INPUTS}, but got an array with length {len(texts)} instead."
    for place, text in enumerate(texts):
        if len(text) // 4 > MOST_TOKENS:
            return f"Invalid 'input[{place}]': maximum input length is {MOST_TOKENS} tokens."
    if (together := sum(tokens(text) for text in texts)) > MOST_TOGETHER:
        return f"Requested {together} tokens, max {MOST_TOGETHER} tokens per request"
    return None


def described(key: str, body: dict[str, Any]) -> Line:
    """Parse a request to describe the last media file in it."""
    digest = ""
    for message in body.get("messages", []):
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if url := (part.get("image_url") or {}).get("url"):
                digest = sha256(b64decode(url.partition("base64,")[2])).hexdigest()
            elif sound := part.get("input_audio"):
                digest = sha256(b64decode(sound["data"])).hexdigest()
    problem = None if digest else "There is no media in this request."
    return Line(key, (describe_digest(digest) if digest else "",), problem=problem)


def embedded(line: Line, model: str, rows: Any) -> dict[str, Any]:
    """Return the answer to a request to embed, from its vectors or from what a fault made of them."""
    if not isinstance(rows, str):
        rows = [
            {"object": "embedding", "index": place, "embedding": _coded(row) if line.base64 else row}
            for place, row in enumerate(rows)
        ]
    count = sum(tokens(text) for text in line.texts)
    return {"object": "list", "data": rows, "model": model, "usage": {"prompt_tokens": count, "total_tokens": count}}


def _coded(row: Any) -> Any:
    """Encode as Base64 of float32; a value that is not a number stays in a list."""
    words = {mark: float(word) for mark, word in spoiling.MARKS.values()}
    numbers = [words.get(value, value) for value in row] if isinstance(row, list) else row
    if isinstance(numbers, list) and not all(isinstance(value, float) for value in numbers):
        return row
    with np.errstate(over="ignore"):
        return b64encode(np.asarray(numbers, np.float32).tobytes()).decode()


def generated(line: Line, model: str) -> dict[str, Any]:
    """Return the answer to a request to describe."""
    message = {"role": "assistant", "content": line.texts[0], "refusal": None}
    usage = {"prompt_tokens": 258, "completion_tokens": tokens(line.texts[0])}
    usage["total_tokens"] = sum(usage.values())
    head = {"id": "chatcmpl-fake", "object": "chat.completion", "created": 1_767_225_600, "model": model}
    return head | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def parse(raw: bytes, endpoint: str) -> Line:
    """Parse a line of a file. Raises `ValueError` where it belongs to no job of that endpoint."""
    line = orjson.loads(raw)
    if line["method"] != "POST" or line["url"] != endpoint:
        raise ValueError(f"it asks {line['method']} {line['url']}, the batch is for {endpoint}")
    read = wanted if endpoint == "/v1/embeddings" else described
    return read(line["custom_id"], line["body"])


def render(job: Job, verdict: Verdict) -> bytes | None:
    """Return one line of the output file."""
    if verdict.expired or verdict.failure is not None:
        return None
    line = verdict.line
    body = generated(line, job.model) if job.kind == "describe" else embedded(line, job.model, vectors(job, verdict))
    return _line(line, {"status_code": 200, "request_id": f"req_{line.key}", "body": body}, None)


def render_error(job: Job, verdict: Verdict) -> bytes | None:
    """Return one line of the error file."""
    if verdict.expired:
        reason = "This request could not be executed before the completion window expired."
        return _line(verdict.line, None, {"code": "batch_expired", "message": reason})
    if verdict.failure is None:
        return None
    problem = {"message": verdict.failure, "type": "invalid_request_error", "param": None, "code": None}
    response = {"status_code": 400, "request_id": f"req_{verdict.line.key}", "body": {"error": problem}}
    return _line(verdict.line, response, None)


def _line(line: Line, response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    document = {"id": f"batch_req_{line.key}", "custom_id": line.key, "response": response, "error": error}
    return spoiling.dump(document) + b"\n"
