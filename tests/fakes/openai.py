"""The wire of the fake: OpenAI's API as it answers it; files and batches are in modules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes import chat_wire, openai_batches, openai_files, openai_lines, spoiling
from tests.fakes.faults import Fault, Rule
from tests.fakes.openai_errors import error, refused
from tests.fakes.vectors import expected_vectors
from tests.fakes.wire import Call, Reply, Routes

if TYPE_CHECKING:
    from tests.fakes.server import FakeProvider

PREFIX = "/v1/"
WORKING = ("/v1/embeddings", "/v1/chat/completions")
REASONS = {
    Fault.BUSY_503: ("The server is overloaded or not ready yet.", None),
    Fault.RATE_LIMITED_429: ("Rate limit reached for requests.", "rate_limit_exceeded"),
    Fault.QUOTA_429: (
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
    ),
    Fault.UNAUTHORIZED_401: ("Incorrect API key provided.", "invalid_api_key"),
    Fault.FORBIDDEN_403: ("Country, region, or territory not supported", "unsupported_country_region_territory"),
    Fault.NO_MODEL_404: ("The model does not exist or you do not have access to it.", "model_not_found"),
    Fault.TOO_LONG_400: ("Invalid 'input[0]': maximum input length is 8192 tokens.", None),
}


class OpenAI:
    """OpenAI's part of the fake."""

    def stranger(self, fake: FakeProvider, request: web.Request) -> Reply | None:
        """Answer 401 with invalid_api_key."""
        if not fake.api_key or request.headers.get("Authorization") == f"Bearer {fake.api_key}":
            return None
        return error(401, "Incorrect API key provided.", "invalid_api_key")

    def uploads(self, request: web.Request) -> bool:
        """Return whether this is the form with a file."""
        return request.method == "POST" and request.path == "/v1/files"

    def works(self, path: str) -> bool:
        """Return whether this embeds or describes online."""
        return path in WORKING

    def model(self, call: Call) -> str:
        """Return the model in the body, or in the path."""
        _, found, model = call.request.path.partition("/models/")
        return model if found else str(call.asked.get("model", ""))

    def texts(self, call: Call) -> Sequence[str]:
        """Return the texts of a request to embed."""
        given = call.asked.get("input", [])
        return [given] if isinstance(given, str) else [text for text in given if isinstance(text, str)]

    def failure(self, status: int, rule: Rule) -> Reply:
        """Return the answer of a fault that has a status."""
        reason, code = REASONS.get(rule.fault, (f"The server had an error: {rule.fault}.", None))
        wait = rule.retry_after
        if status != 429:
            return error(status, reason, code)
        if code == "insufficient_quota":
            return error(status, reason, code, kind=code)
        if wait is None:
            return error(status, reason, code)
        reply = error(status, f"{reason} Please try again in {wait}s.", code)
        reply.headers["Retry-After"] = wait
        return reply

    async def act(self, call: Call) -> Reply:
        """Do what is asked. Raises `Refused`."""
        found = ROUTES.find(call.request.method, call.request.path)
        if found is None:
            return error(404, f"Invalid URL ({call.request.method} {call.request.path})")
        model = self.model(call)
        if model in call.fake.missing:
            raise refused(404, f"The model '{model}' does not exist.", "model_not_found")
        act, names = found
        return await act(call, **names)


async def embed(call: Call) -> Reply:
    """Answer with one vector per text."""
    model = str(call.asked.get("model"))
    line = openai_lines.wanted("", call.asked)
    if line.problem:
        code = "max_tokens_per_request" if line.problem.startswith("Requested") else None
        raise refused(400, line.problem, code, param="input")
    line = replace(line, texts=tuple(map(call.fake.read, line.texts)))
    vectors = expected_vectors(call.fake.weights.get(model, model), line.texts, line.dims or call.fake.width(model))
    answer = openai_lines.embedded(line, model, spoiling.rows(call.fault, vectors))
    if call.fake.told_tokens is not None:
        answer["usage"]["prompt_tokens"] = call.fake.told_tokens
    return Reply(answer)


async def complete(call: Call) -> Reply:
    """Answer a talk, or describe an image."""
    if chat_wire.is_openai_talk(call.asked):
        return Reply(chat_wire.openai(call))
    line = openai_lines.described("", call.asked)
    if line.problem:
        raise refused(400, line.problem, param="messages")
    return Reply(openai_lines.generated(line, str(call.asked.get("model"))))


async def show_model(call: Call, model: str) -> Reply:
    """Show that a model exists."""
    return Reply({"id": model, "object": "model", "created": 1_767_225_600, "owned_by": "system"})


ROUTES = Routes(
    ("POST", "/v1/embeddings", embed),
    ("POST", "/v1/chat/completions", complete),
    ("GET", "/v1/models/(?P<model>.+)", show_model),
    ("POST", "/v1/files", openai_files.create),
    ("GET", "/v1/files", openai_files.listed),
    ("GET", "/v1/files/{id_}", openai_files.show),
    ("GET", "/v1/files/{id_}/content", openai_files.content),
    ("DELETE", "/v1/files/{id_}", openai_files.delete),
    ("POST", "/v1/batches", openai_batches.create),
    ("GET", "/v1/batches", openai_batches.listed),
    ("GET", "/v1/batches/{id_}", openai_batches.show),
    ("POST", "/v1/batches/{id_}/cancel", openai_batches.cancel),
)
