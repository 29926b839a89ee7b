"""Servers that speak OpenAI's embeddings API, each as it is: what it refuses, ignores and caps, and in which words."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web

from tests.fakes import spoiling
from tests.fakes.openai import OpenAI
from tests.fakes.openai_errors import error
from tests.fakes.vectors import expected_vectors
from tests.fakes.wire import Call, Reply

if TYPE_CHECKING:
    from tests.fakes.server import FakeProvider


def _said(what: str, given: int, most: int) -> Reply:
    if what == "long":
        return error(
            400, f"This model's maximum context length is {most} tokens. However, you requested {given} tokens."
        )
    return error(400, f"{what}: {given} > {most}")


@dataclass(frozen=True)
class Server:
    """One kind of server, reached below `/<name>`.

    `root` is what stands before `/embeddings`. It `refuses` options of a request, takes `most` texts in one, and `texts` of
    so many characters; `says` answers a request by what is wrong with it: the option, "most" or "long".
    """

    root: str = "/v1"
    needs_key: bool = False
    refuses: tuple[str, ...] = ()
    takes_dimensions: bool = False
    most: int = 2048
    longest: int = 2000
    indexed: bool = True
    base64: bool = False
    says: Callable[[str, int, int], Reply] = _said


def _vllm(what: str, given: int, most: int) -> Reply:
    said = {
        "dimensions": 'Model "m" does not support matryoshka representation, changing output dimensions will lead to poor results.',
        "long": f"This model's maximum context length is {most} tokens. However, you requested {given} tokens in the input.",
    }[what]
    return Reply({"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": 400}, 400)


def _tei(what: str, given: int, most: int) -> Reply:
    said, status = (
        (f"batch size {given} > maximum allowed batch size {most}", 422)
        if what == "most"
        else (f"`inputs` must have less than {most} tokens. Given: {given}", 413)
    )
    return Reply({"message": said, "type": "Validation"}, status)


def _lmstudio(what: str, given: int, most: int) -> Reply:
    return Reply({"error": f"Failed to get embedding: input too {what}"})


def _llamacpp(what: str, given: int, most: int) -> Reply:
    said = "input is too large to process. increase the physical batch size"
    return Reply({"error": {"code": 500, "message": said, "type": "server_error"}}, 500)


def _dashscope(what: str, given: int, most: int) -> Reply:
    said = f"batch size is invalid, it should not be larger than {most}.: input.contents"
    if what == "long":
        said = f"Range of input length should be [1, {most}]"
    return error(400, f"<400> InternalError.Algo.InvalidParameter: Value error, {said}", "InvalidParameter")


def _litellm(what: str, given: int, most: int) -> Reply:
    if what == "long":
        said = f"litellm.ContextWindowExceededError: maximum context length is {most} tokens, {given} were given."
        return error(400, said, "context_length_exceeded")
    return error(
        400,
        f"litellm.UnsupportedParamsError: vertex_ai does not support parameters: {{'{what}': 'float'}}, for model=m.",
    )


def _siliconflow(what: str, given: int, most: int) -> Reply:
    if what == "most":
        return Reply({"code": 20042, "message": f"input batch size {given} > maximum allowed batch size {most}"}, 413)
    return Reply({"code": 20015, "message": "The parameter is invalid. Please check again.", "data": None}, 400)


SERVERS = {
    "azure": Server("/openai/deployments/embed", needs_key=True, takes_dimensions=True),
    "vllm": Server(refuses=("dimensions",), says=_vllm),
    "tei": Server(most=32, says=_tei),
    "lmstudio": Server(says=_lmstudio),
    "llamacpp": Server(says=_llamacpp),
    "dashscope": Server("/compatible-mode/v1", needs_key=True, takes_dimensions=True, most=10, says=_dashscope),
    "litellm": Server(needs_key=True, refuses=("encoding_format",), says=_litellm),
    "siliconflow": Server(needs_key=True, refuses=("encoding_format", "dimensions"), most=32, says=_siliconflow),
    "infinity": Server("", indexed=False, base64=True),
}


def server_of(path: str) -> Server | None:
    """Return the server that a path belongs to."""
    return SERVERS.get(path.split("/")[1])


class Compatible(OpenAI):
    """The wire of one of these servers."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def stranger(self, fake: FakeProvider, request: web.Request) -> Reply | None:
        """Answer 401 to whoever brings no key where one is needed, or a key where Azure does not look for it."""
        azure = request.path.startswith("/azure/")
        given = request.headers.get("api-key") if azure else request.headers.get("authorization", "")[7:]
        if not self.server.needs_key or (given and fake.api_key in (None, given)):
            return None
        return error(401, "Access denied due to invalid subscription key.", "401")

    def works(self, path: str) -> bool:
        """Return whether this embeds."""
        return path.endswith("/embeddings")

    async def act(self, call: Call) -> Reply:
        """Embed, if the path is right and nothing in the request is refused."""
        server, asked = self.server, call.asked
        path = call.request.path.removeprefix("/" + call.request.path.split("/")[1])
        if path != f"{server.root}/embeddings" or ("deployments" in path and "api-version" not in call.request.query):
            return error(404, "Resource not found", "404")
        texts = list(self.texts(call))
        for option in server.refuses:
            if option in asked:
                return server.says(option, 0, 0)
        if len(texts) > server.most:
            return server.says("most", len(texts), server.most)
        if any(len(text) > server.longest for text in texts):
            return server.says("long", max(map(len, texts)), server.longest)
        width = asked.get("dimensions") if server.takes_dimensions else None
        model = str(asked.get("model"))
        rows = spoiling.rows(call.fault, expected_vectors(model, texts, width or call.fake.width(model)))
        return Reply({"object": "list", "data": [self._item(at, row) for at, row in enumerate(rows)], "model": model})

    def _item(self, at: int, row: Any) -> dict[str, Any]:
        embedding = b64encode(np.asarray(row, "<f4").tobytes()).decode() if self.server.base64 else row
        place = {"index": at} if self.server.indexed else {}
        return {"object": "embedding", "embedding": embedding} | place
