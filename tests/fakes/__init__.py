"""One fake provider: an HTTP server that speaks Ollama, OpenAI and Gemini, and fails when told to."""

from tests.fakes.batches import Batches
from tests.fakes.faults import Fault, Rule
from tests.fakes.jobs import Job, State
from tests.fakes.request_log import Request
from tests.fakes.server import FakeProvider
from tests.fakes.thread import FakeProviderThread
from tests.fakes.vectors import expected_description, expected_vector, expected_vectors

__all__ = [
    "Batches",
    "FakeProvider",
    "FakeProviderThread",
    "Fault",
    "Job",
    "Request",
    "Rule",
    "State",
    "expected_description",
    "expected_vector",
    "expected_vectors",
]
