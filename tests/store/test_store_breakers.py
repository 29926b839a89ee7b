"""Circuit breakers in the database: opened by whoever fails, shared by equal endpoints, tried by one worker at a time."""

import asyncio
from uuid import uuid4

from evervec.domain.endpoint import endpoint_digest
from evervec.domain.protocols import ModelProbe
from evervec.store import breakers, providers
from evervec.store.breakers import Breaker
from evervec.store.database.session import Database
from evervec.store.providers import Provider, ProviderDraft


async def added(database: Database, name: str, model: str = "model", endpoint: bytes | None = None) -> Provider:
    async with database.transaction() as tx:
        return await providers.add(
            tx, ProviderDraft(name, "ollama", model=model), ModelProbe(4), api_key_encrypted=None, endpoint=endpoint
        )


async def opened(
    database: Database,
    provider: Provider,
    *,
    seconds: float,
    known: int = 0,
    counted: bool = True,
    code: str = "transient",
) -> float:
    async with database.transaction() as tx:
        return await breakers.open_(
            tx, provider.endpoint, seconds=seconds, code=code, error="503", counted=counted, known=known
        )


async def seen(database: Database, name: str = "one") -> Breaker:
    async with database.read() as tx:
        return (await providers.by_name(tx, name)).breaker


async def test_a_pause_is_everybodys_and_the_longest_one_counts(database: Database) -> None:
    provider = await added(database, "one")
    assert provider.breaker == Breaker()
    assert 50 < await opened(database, provider, seconds=60) <= 60
    assert 50 < await opened(database, provider, seconds=1, known=1, counted=False) <= 60
    breaker = await seen(database)
    assert 50 < breaker.seconds <= 60
    assert (breaker.is_open, breaker.failures, breaker.code, breaker.error) == (True, 1, "transient", "503")
    async with database.transaction() as tx:
        await breakers.close(tx, provider.endpoint)
    assert await seen(database) == Breaker()


async def test_requests_that_fail_together_count_as_one_failure(database: Database) -> None:
    provider = await added(database, "one")
    await opened(database, provider, seconds=1)
    for known in (0, 1, 1, 1, 2):
        await opened(database, provider, seconds=1, known=known)
    assert (await seen(database)).failures == 3


async def test_records_of_one_address_key_and_model_share_a_breaker_and_others_do_not(database: Database) -> None:
    one, two, other = (
        await added(database, "one"),
        await added(database, "two"),
        await added(database, "three", "other"),
    )
    assert one.endpoint == two.endpoint != other.endpoint
    await opened(database, one, seconds=60)
    assert (await seen(database, "two")).is_open
    assert not (await seen(database, "three")).is_open


async def test_one_worker_at_a_time_tries_an_endpoint(database: Database) -> None:
    provider = await added(database, "one")
    await opened(database, provider, seconds=60)

    async def begun(seconds: float = 60) -> bool:
        async with database.transaction() as tx:
            return await breakers.begin_trial(tx, provider.endpoint, uuid4(), seconds=seconds)

    assert not await begun()
    async with database.transaction() as tx:
        await tx.execute("UPDATE provider_breakers SET open_until = now()")
    assert sorted(await asyncio.gather(*(begun() for _ in range(6)))) == [False] * 5 + [True]
    async with database.transaction() as tx:
        await tx.execute("UPDATE provider_breakers SET trial_until = now()")
    assert await begun(), "the one that tried has died"
    await opened(database, provider, seconds=0)
    assert await begun(), "the trial failed, and its pause is over"


async def test_whoever_had_nothing_to_send_lets_the_next_one_try(database: Database) -> None:
    provider, first, second = await added(database, "one"), uuid4(), uuid4()
    await opened(database, provider, seconds=0)
    async with database.transaction() as tx:
        assert await breakers.begin_trial(tx, provider.endpoint, first, seconds=60)
        await breakers.end_trial(tx, provider.endpoint, second)
        assert not await breakers.begin_trial(tx, provider.endpoint, second, seconds=60)
        await breakers.end_trial(tx, provider.endpoint, first)
        assert await breakers.begin_trial(tx, provider.endpoint, second, seconds=60)


async def test_only_an_acceptance_closes_what_a_health_check_opened(database: Database) -> None:
    provider = await added(database, "one")
    await opened(database, provider, seconds=0, code=breakers.DRIFTED)
    await opened(database, provider, seconds=60)
    async with database.transaction() as tx:
        await breakers.close(tx, provider.endpoint)
        assert not await breakers.begin_trial(tx, provider.endpoint, uuid4(), seconds=60)
    breaker = await seen(database)
    assert (breaker.is_open, breaker.code) == (True, "drifted")
    async with database.transaction() as tx:
        await breakers.accept(tx, provider.endpoint)
    assert not (await seen(database)).is_open


async def test_a_breaker_goes_with_the_last_provider_of_its_endpoint(database: Database) -> None:
    provider = await added(database, "one")
    await added(database, "two")
    await opened(database, provider, seconds=60)
    async with database.transaction() as tx:
        await providers.remove(tx, "one")
        assert await tx.fetchval("SELECT count(*) FROM provider_breakers") == 1
        await providers.remove(tx, "two")
        assert await tx.fetchval("SELECT count(*) FROM provider_breakers") == 0


def test_an_endpoint_hides_its_key_and_differs_by_each_of_its_three() -> None:
    digest = endpoint_digest("openai", "http://a/v1", "m", api_key="k", secret="s")
    assert digest == endpoint_digest("openai", "http://a/v1/", "m", api_key="k", secret="s")
    others = [
        endpoint_digest("openai", "http://b/v1", "m", api_key="k", secret="s"),
        endpoint_digest("openai", "http://a/v1", "n", api_key="k", secret="s"),
        endpoint_digest("openai", "http://a/v1", "m", api_key="l", secret="s"),
        endpoint_digest("openai", "http://a/v1", "m", api_key="k", secret="t"),
        endpoint_digest("openai", "http://a/v1", "m"),
    ]
    assert len({digest, *others}) == 6
