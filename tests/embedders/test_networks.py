"""Where a request may go: a host is resolved once, every address of it is judged, and the one that was judged is connected to."""

import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from evervec.domain.protocols import Embedder
from evervec.embedders.catalog import open_embedder
from evervec.errors import ConfigError, ProviderError, Refused
from evervec.vendors.networks import POLICY, AllowedNetworks
from tests.fakes import FakeProvider, Fault

VENDORS = ("ollama", "openai", "gemini")
HOST = "provider.example"
Answers = Callable[..., Counter[str]]


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """Give the next test the policy that everybody has who sets nothing."""
    yield
    POLICY.allowed = AllowedNetworks()


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(dims=8) as running:
        yield running


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Return a function that makes the name server answer for HOST, one list after the other, and counts the questions."""
    real = socket.getaddrinfo

    def set_answers(*lists: list[str]) -> Counter[str]:
        asked: Counter[str] = Counter()

        def resolve(host: Any, port: Any, *more: Any, **how: Any) -> Any:
            if host != HOST:
                return real(host, port, *more, **how)
            asked[host] += 1
            now = lists[min(asked[host], len(lists)) - 1]
            return [entry for address in now for entry in real(address, port, *more, **how)]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return asked

    return set_answers


def opened(vendor: str, fake: FakeProvider, host: str = HOST) -> Embedder:
    url = fake.url.replace("127.0.0.1", host)
    return open_embedder(vendor, base_url=url, model="m", api_key="a-key", name="mine")


@pytest.mark.parametrize(
    ("allowed", "address", "permitted"),
    [
        ("private", "127.0.0.1", True),
        ("private", "::1", True),
        ("private", "10.1.2.3", True),
        ("private", "100.64.1.1", True),
        ("private", "8.8.8.8", True),
        ("private", "169.254.169.254", False),
        ("private", "::ffff:169.254.169.254", False),
        ("private", "fe80::1%eth0", False),
        ("private", "fd00:ec2::254", False),
        ("private", "100.100.100.200", False),
        ("private", "224.0.0.1", False),
        ("private", "240.0.0.1", False),
        ("public", "8.8.8.8", True),
        ("public", "127.0.0.1", False),
        ("public", "::ffff:127.0.0.1", False),
        ("public", "0.0.0.0", False),
        ("public", "192.168.0.1", False),
        ("public", "fd12::1", False),
        ("10.0.0.0/8, 127.0.0.1", "10.9.9.9", True),
        ("10.0.0.0/8, 127.0.0.1", "127.0.0.1", True),
        ("10.0.0.0/8, 127.0.0.1", "127.0.0.2", False),
        ("10.0.0.0/8, 127.0.0.1", "8.8.8.8", True),
        ("169.254.169.254/32", "169.254.169.254", True),
    ],
)
def test_an_address_is_allowed_or_not(allowed: str, address: str, permitted: bool) -> None:
    assert AllowedNetworks.parse(allowed).permit(address) is permitted


def test_a_setting_that_is_no_network_is_refused() -> None:
    with pytest.raises(Refused, match="EVERVEC_PROVIDER_NETWORKS"):
        AllowedNetworks.parse("everything")


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1"])
async def test_the_machine_itself_is_refused_however_it_is_written_where_only_public_ones_are_allowed(
    fake: FakeProvider, vendor: str, host: str
) -> None:
    POLICY.allowed = AllowedNetworks.parse("public")
    embedder = opened(vendor, fake, host)
    with pytest.raises(ConfigError, match="EVERVEC_PROVIDER_NETWORKS"):
        await embedder.embed(["x"])
    assert fake.requests == []
    await embedder.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_name_is_resolved_once_and_its_later_answers_lead_nowhere_else(
    fake: FakeProvider, answers: Answers, vendor: str
) -> None:
    asked = answers(["127.0.0.1"], ["169.254.169.254"])
    embedder = opened(vendor, fake)
    for number in range(3):
        assert len(await embedder.embed([f"text {number}"])) == 1
    assert asked[HOST] == 1
    await embedder.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_name_with_one_forbidden_address_is_refused_before_anything_is_sent(
    fake: FakeProvider, answers: Answers, vendor: str
) -> None:
    answers(["127.0.0.1", "169.254.169.254"])
    embedder = opened(vendor, fake)
    with pytest.raises(ConfigError, match=r"169\.254\.169\.254"):
        await embedder.embed(["x"])
    assert fake.requests == []
    await embedder.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_next_address_is_tried_where_one_takes_no_connection(
    fake: FakeProvider, answers: Answers, vendor: str
) -> None:
    answers(["127.0.0.2", "127.0.0.1"])
    embedder = opened(vendor, fake)
    assert len(await embedder.embed(["x"])) == 1
    await embedder.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_name_is_asked_for_again_after_nobody_was_there(
    fake: FakeProvider, answers: Answers, vendor: str
) -> None:
    asked = answers(["127.0.0.2"], ["127.0.0.1"])
    embedder = opened(vendor, fake)
    with pytest.raises(ProviderError) as problem:
        await embedder.embed(["x"])
    assert problem.value.code == "transient"
    assert len(await embedder.embed(["x"])) == 1
    assert asked[HOST] == 2
    await embedder.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_name_that_does_not_exist_is_an_outage_and_named(fake: FakeProvider, vendor: str) -> None:
    embedder = opened(vendor, fake, "no-such-host.invalid")
    with pytest.raises(ProviderError, match=r"no-such-host\.invalid") as problem:
        await embedder.embed(["x"])
    assert problem.value.code == "transient"
    await embedder.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_redirect_is_named_and_not_followed(fake: FakeProvider, vendor: str) -> None:
    fake.fail_next(1, Fault.REDIRECT_302)
    embedder = opened(vendor, fake, "127.0.0.1")
    with pytest.raises(ConfigError, match=r"redirects to http://169\.254\.169\.254/"):
        await embedder.embed(["x"])
    await embedder.aclose()
