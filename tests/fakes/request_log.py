"""What the fake provider was asked, append-only: the witness of every test that counts what was sent."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.faults import Fault

EMBEDDING = ("/api/embed", "/embeddings", ":embedContent", ":batchEmbedContents")


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `status` is what it was answered with, 0 for a connection that was cut or stalled.

    `texts` are those that the request itself holds: a file of texts has them in its job. `body` is empty for uploads.
    """

    endpoint: str
    model: str
    texts: tuple[str, ...]
    status: int
    fault: Fault | None
    body: bytes = field(repr=False, default=b"")
    at: float = field(default_factory=time.time)
    method: str = "POST"


def count_texts(requests: list[Request], *, embedded: bool) -> Counter[str]:
    """Count how often each text was sent to be embedded online; with `embedded`, only successful answers."""
    counted: Counter[str] = Counter()
    for request in requests:
        if request.endpoint.endswith(EMBEDDING) and not (embedded and (request.fault or request.status != 200)):
            counted.update(request.texts)
    return counted
