"""The wire of the fake: the Gemini Developer API as v1beta answers it; files and batches are in modules of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes import chat_wire, gemini_batches, gemini_files, gemini_lines, spoiling
from tests.fakes.faults import Fault, Rule
from tests.fakes.gemini_errors import KEY_REASON, error, refused
from tests.fakes.vectors import expected_vectors, tokens
from tests.fakes.wire import Call, Reply, Routes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tests.fakes.server import FakeProvider

PREFIXES = ("/v1beta/", "/upload/v1beta/", "/download/v1beta/")
WORKING = (":embedContent", ":batchEmbedContents", ":generateContent")
MOST_REQUESTS = 100
REASONS = {
    Fault.BUSY_503: "The model is overloaded. Please try again later.",
    Fault.RATE_LIMITED_429: "You exceeded your current quota, please check your plan and billing details.",
    Fault.QUOTA_429: "You exceeded your current quota, please check your plan and billing details.",
    Fault.UNAUTHORIZED_401: "Request had invalid authentication credentials.",
    Fault.FORBIDDEN_403: "The caller does not have permission",
    Fault.TOO_LONG_400: "The input token count exceeds the maximum number of tokens allowed.",
    Fault.TOO_LARGE_413: "Request payload size exceeds the limit.",
}


class Gemini:
    """Gemini's part of the fake."""

    def stranger(self, fake: FakeProvider, request: web.Request) -> Reply | None:
        """Answer 400 with API_KEY_INVALID; the bytes of an upload need no key, because their address is one."""
        given = request.headers.get("x-goog-api-key") or request.query.get("key")
        if not fake.api_key or given == fake.api_key or request.path == gemini_files.BYTES:
            return None
        return error(400, "API key not valid. Please pass a valid API key.", KEY_REASON)

    def uploads(self, request: web.Request) -> bool:
        """Return whether this is a resumable upload, or an upload in one request."""
        return request.path == gemini_files.BYTES or gemini_files.is_multipart(request)

    def works(self, path: str) -> bool:
        """Return whether this embeds or describes online."""
        return path.endswith(WORKING)

    def model(self, call: Call) -> str:
        """Return the model in the path."""
        _, found, rest = call.request.path.partition("/models/")
        return rest.partition(":")[0] if found else ""

    def texts(self, call: Call) -> Sequence[str]:
        """Return the texts of a request to embed, online or inline."""
        return list(_texts(call.asked))

    def failure(self, status: int, rule: Rule) -> Reply:
        """Return the answer of a fault that has a status."""
        reason = REASONS.get(rule.fault, f"An internal error has occurred: {rule.fault}.")
        if status != 429:
            return error(status, reason)
        quota = "PerDay" if rule.fault is Fault.QUOTA_429 else "PerMinute"
        wait = rule.retry_after
        details: list[dict[str, Any]] = [_quota_failure(f"EmbedContentRequests{quota}PerProjectPerModel-FreeTier")]
        if wait is not None:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait}s"})
            reason += f" Please retry in {wait}s."
        return error(status, reason, *details)

    async def act(self, call: Call) -> Reply:
        """Do what is asked. Raises `Refused`."""
        found = ROUTES.find(call.request.method, call.request.path)
        if found is None:
            return error(404, f"Requested entity was not found: {call.request.path}")
        act, names = found
        if names.get("model") in call.fake.missing:
            raise gemini_batches.unknown_model(names["model"])
        return await act(call, **names)


def _quota_failure(quota: str) -> dict[str, Any]:
    metric = "generativelanguage.googleapis.com/embed_content_free_tier_requests"
    violation = {"quotaMetric": metric, "quotaId": quota, "quotaValue": "1000"}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def _texts(asked: dict[str, Any]) -> Iterator[str]:
    requests = asked.get("requests") or [asked]
    inline = gemini_batches.inline_requests(asked)
    for request in inline or requests:
        content = request.get("request", request).get("content") if isinstance(request, dict) else None
        if isinstance(content, dict):
            yield gemini_lines.text_of(content)


async def embed(call: Call, model: str) -> Reply:
    """Answer with one vector."""
    return _embedded(call, model, [call.asked], batch=False)


async def embed_many(call: Call, model: str) -> Reply:
    """Answer with up to a hundred vectors."""
    requests = call.asked.get("requests") or []
    if len(requests) > MOST_REQUESTS:
        raise refused(
            400, f"* BatchEmbedContentsRequest.requests: at most {MOST_REQUESTS} requests can be in one batch\n"
        )
    for number, request in enumerate(requests):
        if request.get("model") != f"models/{model}":
            raise refused(400, f"* BatchEmbedContentsRequest.requests[{number}].model: unexpected model name format\n")
    return _embedded(call, model, requests, batch=True)


def _embedded(call: Call, model: str, requests: list[dict[str, Any]], *, batch: bool) -> Reply:
    texts, dims = [], call.fake.width(model)
    for request in requests:
        line = gemini_lines.wanted("", request)
        if line.problem:
            raise refused(400, line.problem)
        texts.append(call.fake.read(line.texts[0]))
        dims = line.dims or dims
    rows: NDArray[np.float32] | Any = spoiling.rows(call.fault, expected_vectors(model, texts, dims))
    usage = {"promptTokenCount": sum(tokens(text) for text in texts)}
    if not batch:
        first = rows[0] if len(rows) else None
        return Reply({"embedding": rows if isinstance(rows, str) else {"values": first}, "usageMetadata": usage})
    embeddings = rows if isinstance(rows, str) else [{"values": row} for row in rows]
    return Reply({"embeddings": embeddings, "usageMetadata": usage})


async def generate(call: Call, model: str) -> Reply:
    """Answer a talk, or describe an image."""
    if chat_wire.is_gemini_talk(call.asked):
        return Reply(chat_wire.gemini(call, model))
    line = gemini_lines.described("", call.asked, call.fake.batches.digests)
    if line.problem:
        raise refused(400, line.problem)
    return Reply(gemini_lines.generated(line, model))


async def show_model(call: Call, model: str) -> Reply:
    """Show what a model can do."""
    methods = ["embedContent", "countTextTokens", "countTokens", "generateContent"]
    if model not in call.fake.unbatched:
        methods += ["asyncBatchEmbedContent", "batchGenerateContent"]
    return Reply(
        {
            "name": f"models/{model}",
            "version": "001",
            "displayName": model,
            "inputTokenLimit": call.fake.context_tokens,
            "outputTokenLimit": 1,
            "supportedGenerationMethods": methods,
        }
    )


ROUTES = Routes(
    ("GET", "/v1beta/models/{model}", show_model),
    ("POST", "/v1beta/models/{model}:embedContent", embed),
    ("POST", "/v1beta/models/{model}:batchEmbedContents", embed_many),
    ("POST", "/v1beta/models/{model}:generateContent", generate),
    ("POST", "/v1beta/models/{model}:asyncBatchEmbedContent", gemini_batches.create_embedding),
    ("POST", "/v1beta/models/{model}:batchGenerateContent", gemini_batches.create_generating),
    ("GET", "/v1beta/batches", gemini_batches.listed),
    ("GET", "/v1beta/batches/{id_}", gemini_batches.show),
    ("POST", "/v1beta/batches/{id_}:cancel", gemini_batches.cancel),
    ("DELETE", "/v1beta/batches/{id_}", gemini_batches.delete),
    ("POST", "/upload/v1beta/files", gemini_files.start),
    ("POST", gemini_files.BYTES, gemini_files.receive),
    ("GET", "/v1beta/files", gemini_files.listed),
    ("GET", "/v1beta/files/{id_}", gemini_files.show),
    ("DELETE", "/v1beta/files/{id_}", gemini_files.delete),
    ("GET", "(?:/download)?/v1beta/files/{id_}:download", gemini_files.download),
)
