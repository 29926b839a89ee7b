"""The wire of the fake: Ollama's endpoints as its server answers them; faults are drawn in ollama_faults.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.fakes import chat, ollama_faults
from tests.fakes.faults import Fault
from tests.fakes.request_log import Request
from tests.fakes.vectors import expected_vectors, tokens

if TYPE_CHECKING:
    from tests.fakes.server import FakeProvider

VERSION = "0.33.0"
MODELS = ("fake-embed", "fake-chat")
WORKING = ("/api/embed", "/api/chat")


async def answer(fake: FakeProvider, request: web.Request) -> web.StreamResponse:
    """Log the request, then answer it as Ollama would, or as the first fault that applies says."""
    body = await request.read()
    asked = _document(body)
    texts = _texts(request.path, asked)
    refusal = _refusal(fake, request, asked, texts)
    rule = None if refusal else fake.faults.take(request.path, request.path in WORKING, texts)
    status = ollama_faults.status(rule.fault) if rule else refusal[0] if refusal else 200
    log = Request(request.path, str(asked.get("model", "")), tuple(texts), status, rule.fault if rule else None, body)
    fake.requests.append(log)
    if refusal:
        return error(*refusal)
    if rule and (failed := await ollama_faults.before(fake, request, rule, asked)):
        return failed
    return await _good(fake, request, asked, texts, rule.fault if rule else None)


def error(status: int, reason: str, **headers: str) -> web.Response:
    """Return Ollama's error body."""
    return web.json_response({"error": reason}, status=status, headers=headers)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _texts(path: str, asked: dict[str, Any]) -> list[str]:
    if path == "/api/chat":
        return [str(message.get("content", "")) for message in asked.get("messages", [])]
    wanted = asked.get("input", [])
    return [wanted] if isinstance(wanted, str) else [text for text in wanted if isinstance(text, str)]


def _refusal(
    fake: FakeProvider, request: web.Request, asked: dict[str, Any], texts: list[str]
) -> tuple[int, str] | None:
    """Return what a healthy Ollama refuses by itself."""
    if fake.api_key and request.headers.get("Authorization") != f"Bearer {fake.api_key}":
        return 401, "unauthorized"
    if request.method == "POST" and not asked:
        return 400, "missing request body"
    if asked.get("model") in fake.missing:
        return 404, f"model '{asked['model']}' not found"
    if request.path == "/api/embed" and not isinstance(asked.get("input", ""), str):
        if len(texts) != len(asked["input"]):
            return 400, "invalid input type"
        if not asked.get("truncate", True) and any(len(text) > 4 * fake.context_tokens for text in texts):
            return 400, "the input length exceeds the context length"
    return None


async def _good(
    fake: FakeProvider, request: web.Request, asked: dict[str, Any], texts: list[str], fault: Fault | None
) -> web.StreamResponse:
    match request.path:
        case "/api/embed":
            return await _embed(fake, request, asked, texts, fault)
        case "/api/chat":
            return await _chat(fake, request, asked, fault)
        case "/api/show":
            info = {"general.architecture": "fake", "fake.context_length": fake.context_tokens}
            info["fake.embedding_length"] = fake.width(str(asked.get("model")))
            return web.json_response({"model_info": info, "capabilities": ["embedding", "completion"]})
        case "/api/tags":
            known = dict.fromkeys((*MODELS, *fake.digests))
            listed = [
                {"name": f"{n}:latest", "model": f"{n}:latest", "digest": fake.digests.get(n, "d1")} for n in known
            ]
            return web.json_response({"models": listed})
        case "/api/version":
            return web.json_response({"version": VERSION})
        case "/":
            return web.Response(text="Ollama is running")
        case _:
            return web.Response(status=404, text="404 page not found")


async def _embed(
    fake: FakeProvider, request: web.Request, asked: dict[str, Any], texts: list[str], fault: Fault | None
) -> web.StreamResponse:
    model = str(asked.get("model"))
    if asked.get("input") in ("", None):
        texts = []
    vectors = expected_vectors(
        fake.weights.get(model, model), [text[: 4 * fake.context_tokens] for text in texts], fake.width(model)
    )
    head = {
        "model": model,
        "total_duration": 1_000_000,
        "load_duration": 1000,
        "prompt_eval_count": sum(map(tokens, texts)),
    }
    body = orjson.dumps(head | {"embeddings": vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return await ollama_faults.spoil_vectors(fake, request, fault, vectors, head, body)


async def _chat(
    fake: FakeProvider, request: web.Request, asked: dict[str, Any], fault: Fault | None
) -> web.StreamResponse:
    content = chat.reply(asked, fault)
    head = {"model": asked.get("model"), "created_at": "2026-01-01T00:00:00Z"}
    last = {"done": True, "done_reason": "stop", "total_duration": 1, "eval_count": len(content)}
    last["prompt_eval_count"] = sum(len(turn["content"]) for turn in asked.get("messages", []))
    if not asked.get("stream", True):
        return web.json_response(head | {"message": {"role": "assistant", "content": content}} | last)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    middle = len(content) // 2
    for part in (content[:middle], content[middle:]):
        line = head | {"message": {"role": "assistant", "content": part}, "done": False}
        await response.write(orjson.dumps(line) + b"\n")
        if fault in ollama_faults.MID_BODY:
            return await ollama_faults.break_off(fake, request, response, fault)
    await response.write(orjson.dumps(head | {"message": {"role": "assistant", "content": ""}} | last) + b"\n")
    return response
