"""What the fake provider was asked, append-only: the witness of every test that counts what was sent."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.faults import Fault


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `status` is what it was answered with, 0 for a connection that was cut or stalled."""

    endpoint: str
    model: str
    texts: tuple[str, ...]
    status: int
    fault: Fault | None
    body: bytes = field(repr=False, default=b"")
    at: float = field(default_factory=time.time)


def count_texts(requests: list[Request], *, embedded: bool) -> Counter[str]:
    """How often each text was sent to be embedded; with `embedded`, only what was answered well."""
    counted: Counter[str] = Counter()
    for request in requests:
        if request.endpoint == "/api/embed" and not (embedded and (request.fault or request.status != 200)):
            counted.update(request.texts)
    return counted
