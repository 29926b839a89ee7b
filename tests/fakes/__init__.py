"""One fake provider: an HTTP server that speaks Ollama, answers with known vectors and fails when told to."""

from tests.fakes.faults import Fault, Rule
from tests.fakes.request_log import Request
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread
from tests.fakes.vectors import expected_vector, expected_vectors

__all__ = [
    "FakeProvider",
    "FakeProviderThread",
    "Fault",
    "Request",
    "Rule",
    "expected_vector",
    "expected_vectors",
]
