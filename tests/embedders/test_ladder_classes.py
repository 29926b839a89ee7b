"""Each class of the failure ladder is produced by each provider, from what its server really says."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from evervec.domain.protocols import Embedder
from evervec.embedders.catalog import open_embedder
from evervec.errors import ProviderError, QuotaExhaustedError, RateLimitedError
from evervec.vendors.http import Deadlines
from tests.fakes import FakeProvider, Fault

VENDORS = ("ollama", "openai", "gemini")
CLASSES: dict[str, tuple[Fault, ...]] = {
    "transient": (
        Fault.ERROR_500,
        Fault.BAD_GATEWAY_502,
        Fault.BUSY_503,
        Fault.TIMEOUT_504,
        Fault.RESET,
        Fault.RESET_MID_BODY,
    ),
    "rate_limited": (Fault.RATE_LIMITED_429,),
    "quota_exhausted": (Fault.QUOTA_429,),
    "auth": (Fault.UNAUTHORIZED_401, Fault.FORBIDDEN_403),
    "config": (Fault.NO_MODEL_404, Fault.REDIRECT_302),
    "bad_input": (Fault.BAD_REQUEST_400,),
    "too_large": (Fault.TOO_LONG_400, Fault.TOO_LARGE_413),
    "bad_response": (
        Fault.HTML_200,
        Fault.EMPTY_200,
        Fault.TRUNCATED_JSON,
        Fault.NOT_AN_OBJECT,
        Fault.NOT_A_LIST,
        Fault.RAGGED,
        Fault.STRINGS,
    ),
}
CASES = [(vendor, code, fault) for vendor in VENDORS for code, faults in CLASSES.items() for fault in faults]


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=8) as running:
        yield running


@pytest.fixture
async def opened(fake: FakeProvider) -> AsyncIterator[Callable[[str], Embedder]]:
    embedders: list[Embedder] = []

    def give(vendor: str) -> Embedder:
        embedders.append(open_embedder(vendor, base_url=fake.url, model="m", api_key="a-key", name=vendor))
        return embedders[-1]

    yield give
    for embedder in embedders:
        await embedder.aclose()


async def failure(embedder: Embedder) -> ProviderError:
    with pytest.raises(ProviderError) as problem:
        await embedder.embed(["one", "two", "three"])
    return problem.value


def test_the_table_has_every_class() -> None:
    assert {kind.code for kind in _kinds(ProviderError)} == set(CLASSES)


def _kinds(base: type[ProviderError]) -> list[type[ProviderError]]:
    return [kind for one in base.__subclasses__() for kind in (one, *_kinds(one))]


@pytest.mark.parametrize(("vendor", "code", "fault"), CASES, ids=[f"{v}-{c}-{f}" for v, c, f in CASES])
async def test_a_class_is_produced_and_the_next_request_works(
    fake: FakeProvider, opened: Callable[[str], Embedder], vendor: str, code: str, fault: Fault
) -> None:
    embedder = opened(vendor)
    fake.fail_next(1, fault)
    problem = await failure(embedder)
    assert problem.code == code
    assert vendor in str(problem)
    assert len(await embedder.embed(["afterwards"])) == 1


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_rate_limit_says_how_long_it_lasts(
    fake: FakeProvider, opened: Callable[[str], Embedder], vendor: str
) -> None:
    fake.fail_next(1, Fault.RATE_LIMITED_429, retry_after="34")
    problem = await failure(opened(vendor))
    assert isinstance(problem, RateLimitedError)
    assert problem.delay == 34


@pytest.mark.parametrize("vendor", ["ollama", "openai"])
async def test_a_rate_limit_may_name_a_date(fake: FakeProvider, opened: Callable[[str], Embedder], vendor: str) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    fake.fail_next(1, Fault.RATE_LIMITED_429, retry_after=later)
    problem = await failure(opened(vendor))
    assert isinstance(problem, RateLimitedError)
    assert 500 < problem.delay <= 600


async def test_the_quota_of_a_day_ends_with_the_day_and_that_of_a_minute_is_a_rate_limit(
    fake: FakeProvider, opened: Callable[[str], Embedder]
) -> None:
    embedder = opened("gemini")
    fake.fail_next(1, Fault.QUOTA_429)
    spent = await failure(embedder)
    assert isinstance(spent, QuotaExhaustedError) and spent.until is not None
    assert timedelta() < spent.until - datetime.now(UTC) <= timedelta(hours=25)
    fake.fail_next(1, Fault.RATE_LIMITED_429)
    assert isinstance(await failure(embedder), RateLimitedError)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_MID_BODY])
async def test_a_connection_that_stalls_is_left_at_its_deadline(fake: FakeProvider, vendor: str, fault: Fault) -> None:
    embedder = impatient(vendor, fake.url)
    fake.fail_next(1, fault)
    assert (await failure(embedder)).code == "transient"
    await embedder.aclose()


def impatient(vendor: str, url: str) -> Embedder:
    """Return an embedder that waits for 0.3 s."""
    from evervec.embedders.gemini.embedder import GeminiEmbedder
    from evervec.embedders.ollama.embedder import OllamaEmbedder
    from evervec.embedders.openai.embedder import OpenAIEmbedder
    from evervec.vendors.ollama.client import OllamaDeadlines

    short = Deadlines(connect=0.3, silence=0.3, total=0.3)
    match vendor:
        case "ollama":
            deadlines = OllamaDeadlines(connect=0.3, silence=0.3, total=0.3, load=0.3)
            return OllamaEmbedder(url, "m", name=vendor, deadlines=deadlines)
        case "openai":
            return OpenAIEmbedder("m", api_key="a-key", base_url=url, name=vendor, deadlines=short)
        case _:
            return GeminiEmbedder("m", api_key="a-key", base_url=url, name=vendor, deadlines=short)
