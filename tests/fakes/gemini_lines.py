"""One line of a Gemini batch, read and answered; online requests are read by the same functions."""

from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson

from tests.fakes import spoiling
from tests.fakes.jobs import Job, Line
from tests.fakes.results import Verdict, vectors
from tests.fakes.vectors import describe_digest, tokens


def either(document: Mapping[str, Any], snake: str) -> Any:
    """Return a field in proto-JSON: `file_name` and `fileName` are one."""
    first, *rest = snake.split("_")
    return document.get(snake, document.get(first + "".join(word.capitalize() for word in rest)))


def text_of(content: Mapping[str, Any]) -> str:
    """Return the text of a content's parts."""
    return "".join(part.get("text", "") for part in content.get("parts", []))


def wanted(key: str, request: Mapping[str, Any]) -> Line:
    """Parse a request to embed."""
    text = text_of(request.get("content") or {})
    problem = None if text else "* EmbedContentRequest.content: contents is not specified\n"
    dims = either(request, "output_dimensionality")
    return Line(key, (text,), int(dims) if dims is not None else None, problem=problem)


def described(key: str, request: Mapping[str, Any], digests: Mapping[str, str]) -> Line:
    """Parse a request to describe the last media file in it; `digests` are those of the files at the provider."""
    digest, problem = "", "There is no media in this request."
    parts = [part for content in request.get("contents", []) for part in content.get("parts", [])]
    for part in parts:
        if inline := either(part, "inline_data"):
            digest = sha256(b64decode(inline["data"])).hexdigest()
        elif file := either(part, "file_data"):
            digest = digests.get(either(file, "file_uri").rpartition("/")[2], "")
            problem = "You do not have permission to access the File or it may not exist."
    return Line(key, (describe_digest(digest) if digest else "",), problem=None if digest else problem)


def parse_embed(raw: bytes) -> Line:
    """Parse a line of a file to embed."""
    line = orjson.loads(raw)
    return wanted(str(line["key"]), line["request"])


def generated(line: Line, model: str) -> dict[str, Any]:
    """Return the answer to a request to describe."""
    content = {"role": "model", "parts": [{"text": line.texts[0]}]}
    usage = {"promptTokenCount": 258, "candidatesTokenCount": tokens(line.texts[0])}
    usage["totalTokenCount"] = sum(usage.values())
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}


def answer(job: Job, verdict: Verdict) -> dict[str, Any]:
    """Return `response` or `error` of one line."""
    if verdict.failure is not None:
        return {"error": {"code": 3, "message": verdict.failure}}
    line = verdict.line
    if job.kind == "describe":
        return {"response": generated(line, job.model)}
    embedding = {"values": vectors(job, verdict)[0]}
    return {"response": {"tokenCount": str(tokens(line.texts[0])), "embedding": embedding}}


def render(job: Job, verdict: Verdict) -> bytes:
    """Return one line of the result file."""
    return spoiling.dump({"key": verdict.line.key} | answer(job, verdict)) + b"\n"
