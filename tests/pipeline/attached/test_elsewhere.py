"""Tables of a database that is not ours: their changes are drained, exactly once written, and nothing stays behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from evervec.errors import MissingOutboxRightsError, OtherDatabaseDownError, OtherDatabaseRefusedError, SourceError
from evervec.pipeline.attached import attach as attaching
from evervec.pipeline.attached.attach import Attached
from evervec.pipeline.attached.detach import detach
from evervec.pipeline.attached.follow import follow_elsewhere, follow_tables
from evervec.pipeline.attached.report import attachments
from evervec.pipeline.captures import records
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from evervec.sources.attached.description import describe
from evervec.store import secrets
from tests.conftest import Servers, _sql
from tests.fakes.server import FakeProvider
from tests.pipeline.attached.elsewhere import Elsewhere, elsewhere, reader, require_same
from tests.pipeline.attached.tables import TEXT, attached, open_articles, settled
from tests.pipeline.indexing.indexed import sent


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings that may keep an address with its password."""
    return Settings(home=tmp_path, sweep_seconds=0.1, secret_key=SecretStr(secrets.new_key()))


@pytest.fixture
async def there(servers: Servers) -> AsyncIterator[Elsewhere]:
    """Make a database of somebody else with twelve articles."""
    async with elsewhere(servers, 12) as made:
        yield made


@pytest.fixture
async def articles(resources: Resources, there: Elsewhere, fake: FakeProvider) -> Attached:
    """Attach them, all of them embedded, and forget what the provider was sent."""
    done = await there.attached(resources)
    await settled(resources, done.id)
    fake.requests.clear()
    return done


async def test_exactly_the_changed_rows_are_read_and_embedded(
    resources: Resources, psql: Any, there: Elsewhere, fake: FakeProvider, articles: Attached
) -> None:
    await require_same(psql, there, articles)
    await there.psql.execute("UPDATE public.articles SET body = 'another body' WHERE id = 7")
    await there.psql.execute("INSERT INTO public.articles (title, body) VALUES ('New', 'a row')")
    await there.psql.execute("DELETE FROM public.articles WHERE id = 9")
    await there.psql.execute("UPDATE public.articles SET author = 99")
    assert await there.records() == 3
    await follow_elsewhere(resources)
    await settled(resources, articles.id)
    await require_same(psql, there, articles)
    assert sent(fake) == 2
    assert await there.records() == 0
    await there.psql.execute("TRUNCATE public.articles")
    await settled(resources, articles.id)
    await require_same(psql, there, articles)


async def test_nothing_of_it_stays_and_their_schema_is_what_it_was(
    resources: Resources, psql: Any, there: Elsewhere
) -> None:
    done = await there.attached(resources)
    other = await attached(resources, "public.articles", url=there.url, project="two", dataset="articles")
    assert len(await there.objects()) == 2 * 6 + 1
    assert (await detach(resources, "articles", project="two")).left == []
    assert "schema evervec_outbox" in await there.objects()
    assert other.id != done.id
    await detach(resources, "articles", project="app")
    assert await there.objects() == []
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0


async def test_the_address_is_shown_without_its_password_and_kept_sealed(
    resources: Resources, psql: Any, there: Elsewhere
) -> None:
    url = there.url.replace("@", ":hunter2@", 1) if ":" not in there.url.split("@")[0][13:] else there.url
    await there.attached(resources, url=url)
    (one,) = await attachments(resources)
    assert one.where is not None
    stored = await psql.fetchval("SELECT spec::text || name || cursor::text FROM evervec.sources")
    password = url.split("@")[0].rpartition(":")[2]
    assert password not in stored + one.where
    assert one.problems == []


async def test_a_crash_after_our_commit_takes_the_same_records_again_and_embeds_nothing_twice(
    resources: Resources, psql: Any, there: Elsewhere, fake: FakeProvider, articles: Attached,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await there.psql.execute("UPDATE public.articles SET body = 'once' WHERE id < 4")

    async def crash(*_: object) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr(records.OutboxRecords, "forget_after", crash)
        with pytest.raises(RuntimeError, match="ends here"):
            await follow_elsewhere(resources)
    assert await there.records() == 3
    await settled(resources, articles.id)
    assert await there.records() == 0
    assert sent(fake) == 3
    await require_same(psql, there, articles)


async def test_a_database_that_is_away_is_shown_stops_nobody_else_and_loses_nothing(
    resources: Resources, psql: Any, servers: Servers, there: Elsewhere, articles: Attached
) -> None:
    await open_articles(psql, 3)
    here = await attached(resources, "public.articles", dataset="here")
    await settled(resources, here.id)
    name = await there.psql.fetchval("SELECT current_database()")
    await there.psql.execute("UPDATE public.articles SET body = 'while away' WHERE id = 1")
    await there.psql.close()
    await _sql(
        servers.database_url,
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
    )
    await psql.execute("UPDATE public.articles SET body = 'here' WHERE id = 1")
    await follow_elsewhere(resources)
    await follow_tables(resources)
    assert await psql.fetchval("SELECT count(*) FROM evervec.attached_changes") == 0
    shown = {one.where is None: one for one in await attachments(resources)}
    assert (shown[True].state, shown[False].state) == ("following", "broken")
    assert shown[False].next_try is not None
    assert any(name in problem for problem in shown[False].problems)
    with pytest.raises((OtherDatabaseRefusedError, OtherDatabaseDownError)):
        await detach(resources, f"public.articles at {shown[False].where}")
    await _sql(servers.database_url, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await psql.execute("UPDATE evervec.sources SET cursor = cursor - 'retry_at'")
    again = Elsewhere(there.url, await asyncpg.connect(there.url))
    await settled(resources, articles.id)
    await require_same(psql, again, articles)
    shown = {one.where is None: one for one in await attachments(resources)}
    assert (shown[False].state, shown[False].problems, shown[False].next_try) == ("following", [], None)
    await again.psql.close()


async def test_a_database_that_is_gone_for_good_is_forgotten_with_what_is_to_be_run_there(
    resources: Resources, psql: Any, there: Elsewhere, articles: Attached
) -> None:
    done = await detach(resources, "articles", forget=True)
    assert (done.documents, len(done.left)) == (12, 3)
    assert await psql.fetchval("SELECT count(*) FROM evervec.documents") == 0
    for statement in done.left:
        await there.psql.execute(statement.rpartition("attached there: ")[2])
    assert await there.objects() == []


@pytest.fixture
async def guest(there: Elsewhere) -> AsyncIterator[str]:
    """Make a role that may read the articles and nothing else; return the address with it."""
    async with reader(there) as url:
        yield url


async def test_what_an_administrator_runs_is_printed_found_and_suffices(
    resources: Resources, psql: Any, there: Elsewhere, guest: str, fake: FakeProvider
) -> None:
    with pytest.raises(OtherDatabaseRefusedError, match="print-sql"):
        await there.attached(resources, url=guest)
    assert await there.objects() == []
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0
    described = describe(table="public.articles", project="app", dataset="articles", text=TEXT, url=guest)
    printed = await attaching.statements(resources, described)
    assert await there.objects() == []
    for statement in printed:
        await there.psql.execute(statement)
    made = await there.objects()
    done = await there.attached(resources, url=guest)
    assert await there.objects() == made
    await settled(resources, done.id)
    fake.requests.clear()
    await there.psql.execute("UPDATE public.articles SET body = 'drained' WHERE id = 2")
    await settled(resources, done.id)
    await require_same(psql, there, done)
    assert (sent(fake), await there.records()) == (1, 0)
    assert (await attachments(resources))[0].problems == []
    await there.psql.execute(
        f"REVOKE DELETE ON evervec_outbox.attached_changes FROM {guest.split('://')[1].split(':')[0]}"
    )
    assert "GRANT SELECT, DELETE" in (await attachments(resources))[0].problems[-1]
    with pytest.raises(MissingOutboxRightsError, match="GRANT SELECT, DELETE ON"):
        await there.attached(resources, url=guest)


async def test_triggers_that_are_lost_there_are_mended_and_all_rows_compared(
    resources: Resources, psql: Any, there: Elsewhere, articles: Attached
) -> None:
    await there.psql.execute("ALTER TABLE public.articles DISABLE TRIGGER USER")
    await there.psql.execute(
        "UPDATE public.articles SET body = 'unseen' WHERE id = 5; DELETE FROM public.articles WHERE id = 6"
    )
    assert "switched off" in (await attachments(resources))[0].problems[0]
    resources.others.forget_checks()
    await follow_elsewhere(resources)
    await settled(resources, articles.id)
    assert (await attachments(resources))[0].problems == []
    await require_same(psql, there, articles)


async def test_a_writer_rings_and_who_listens_looks_at_once(
    resources: Resources, there: Elsewhere, articles: Attached
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await there.psql.add_listener("evervec_outbox", lambda *said: heard.put_nowait(said[2]))
    await there.psql.execute("INSERT INTO public.articles (title) VALUES ('a'), ('b')")
    assert await asyncio.wait_for(heard.get(), 60) == "evervec_outbox"


@pytest.mark.parametrize("url", ["mysql://u@h/d", "postgresql://127.0.0.1:1/nothing", ""])
async def test_an_address_that_can_not_be_used_is_refused(resources: Resources, psql: Any, url: str) -> None:
    with pytest.raises((SourceError, OtherDatabaseDownError)):
        await attached(resources, "public.articles", url=url)
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0


async def test_a_schema_of_somebody_else_is_no_outbox(resources: Resources, there: Elsewhere) -> None:
    await there.psql.execute("CREATE SCHEMA evervec_outbox")
    with pytest.raises(SourceError, match="--outbox"):
        await there.attached(resources)
    done = await there.attached(resources, outbox='odd "outbox"')
    await settled(resources, done.id)
    await there.psql.execute("DELETE FROM public.articles WHERE id = 1")
    await settled(resources, done.id)
    await detach(resources, "articles")
    assert await there.objects() == ["schema evervec_outbox"]
