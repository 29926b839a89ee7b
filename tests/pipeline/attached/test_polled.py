"""Tables and views that are polled: what is new, changed or gone is found, whoever commits late."""

from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr

from evervec.errors import SourceError
from evervec.pipeline.attached.attach import Attached
from evervec.pipeline.attached.detach import detach
from evervec.pipeline.attached.follow import follow_elsewhere
from evervec.pipeline.attached.report import attachments
from evervec.pipeline.resources import Resources
from evervec.settings import Settings
from evervec.store import secrets
from evervec.store.captures import polling
from tests.conftest import Servers
from tests.fakes.server import FakeProvider
from tests.pipeline.attached.elsewhere import elsewhere, reader, texts_of
from tests.pipeline.attached.tables import attached, open_articles, require_true, settled
from tests.pipeline.indexing.indexed import sent

STAMPED = """
ALTER TABLE public.articles ADD COLUMN changed timestamptz DEFAULT now();
CREATE INDEX ON public.articles (changed, id);
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changed := now(); RETURN NEW; END';
CREATE TRIGGER stamp BEFORE UPDATE ON public.articles FOR EACH ROW EXECUTE FUNCTION public.stamp()
"""
WAYS: dict[str, dict[str, Any]] = {"xmin": {}, "time": {"poll_column": "changed"}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings under which no comparison is due by itself."""
    key = SecretStr(secrets.new_key())
    return Settings(home=tmp_path, attached_compare_seconds=1e9, secret_key=key)


@pytest.fixture(params=WAYS)
async def polled(request: pytest.FixtureRequest, resources: Resources, psql: Any, fake: FakeProvider) -> Attached:
    """Attach twenty articles without any trigger of ours, all of them embedded."""
    await open_articles(psql, 20)
    await psql.execute(STAMPED)
    done = await attached(resources, capture="poll", **WAYS[request.param])
    await settled(resources, done.id)
    fake.requests.clear()
    return done


async def looked(resources: Resources, source_id: UUID | None) -> None:
    """Have the table looked at now, and embed what was found."""
    resources.others.forget_checks()
    await follow_elsewhere(resources)
    await settled(resources, source_id)


async def compare(psql: Any) -> None:
    """Let the next comparison be due."""
    await psql.execute("UPDATE evervec.sources SET cursor = jsonb_set(cursor, '{position,compared_at}', '-1e10')")


async def test_new_and_changed_rows_are_found_and_exactly_these_are_embedded(
    resources: Resources, psql: Any, fake: FakeProvider, polled: Attached
) -> None:
    await require_true(psql)
    await psql.execute("INSERT INTO public.articles (title, body) VALUES ('New', 'a row')")
    await psql.execute("UPDATE public.articles SET body = 'another body' WHERE id = 7")
    await psql.execute("UPDATE public.articles SET author = 99 WHERE id = 3")
    await looked(resources, polled.id)
    await require_true(psql)
    assert sent(fake) == 2
    assert (
        await psql.fetchval(
            "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'evervec%' AND tgrelid = 'articles'::regclass"
        )
        == 0
    )


async def test_more_rows_than_a_page_are_found(
    resources: Resources, psql: Any, polled: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evervec.pipeline.attached.work.CHANGES_TOGETHER", 3)
    await psql.execute("UPDATE public.articles SET body = body || ' again'")
    await looked(resources, polled.id)
    await require_true(psql)


async def test_what_is_committed_late_is_found(
    resources: Resources, psql: Any, database_url: str, polled: Attached
) -> None:
    late = await asyncpg.connect(database_url)
    tx = late.transaction()
    await tx.start()
    await late.execute("UPDATE public.articles SET body = 'late' WHERE id = 2")
    await psql.execute("UPDATE public.articles SET body = 'early' WHERE id = 4")
    await looked(resources, polled.id)
    await tx.commit()
    await late.close()
    await psql.execute("UPDATE evervec.sources SET cursor = jsonb_set(cursor, '{position,repeated_at}', '0')")
    await looked(resources, polled.id)
    await require_true(psql)


async def test_rows_that_are_gone_are_found_by_their_keys(resources: Resources, psql: Any, polled: Attached) -> None:
    await psql.execute("DELETE FROM public.articles WHERE id < 4")
    await looked(resources, polled.id)
    assert len(await texts_of(psql, polled.id)) == 20
    await compare(psql)
    await looked(resources, polled.id)
    await require_true(psql)


async def test_a_worker_that_crashes_in_between_leaves_the_position_where_it_was(
    resources: Resources, psql: Any, polled: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    await psql.execute("UPDATE public.articles SET body = 'twice' WHERE id = 2")

    async def crash(*_: object) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr("evervec.pipeline.captures.polled.Polled.forget_inside", crash)
        resources.others.forget_checks()
        with pytest.raises(RuntimeError, match="ends here"):
            await follow_elsewhere(resources)
    await looked(resources, polled.id)
    await require_true(psql)


async def test_an_idle_table_is_not_read_again(
    resources: Resources, psql: Any, fake: FakeProvider, polled: Attached
) -> None:
    before = await psql.fetchval("SELECT cursor::text FROM evervec.sources")
    resources.others.forget_checks()
    await follow_elsewhere(resources)
    assert await psql.fetchval("SELECT cursor::text FROM evervec.sources") == before
    assert sent(fake) == 0


@pytest.mark.parametrize("polled", ["xmin"], indirect=True)
async def test_a_position_of_another_server_reads_everything_again(
    resources: Resources, psql: Any, polled: Attached
) -> None:
    await psql.execute("UPDATE public.articles SET body = 'restored'")
    await psql.execute("UPDATE evervec.sources SET cursor = jsonb_set(cursor, '{position,since}', '99999999999999')")
    await looked(resources, polled.id)
    await require_true(psql)


async def test_ids_of_transactions_wrap_around(psql: Any) -> None:
    condition = polling._written("$1", "$2").replace("r.xmin", "x.xid")
    ask = f"SELECT xid::text::bigint FROM unnest($3::text[]::xid[]) AS x (xid) WHERE {condition}"
    since = 5 * 2**32 - 10
    xids = [str(one % 2**32) for one in (since - 1, since, since + 9, since + 13, since + 20)]
    rows = await psql.fetch(ask, since % 2**32, 20, xids)
    assert [row[0] for row in rows] == [2**32 - 10, 2**32 - 1, 3]


VIEW = """
CREATE VIEW public.published AS SELECT a.id, a.title AS headline, a.body, a.changed FROM public.articles a WHERE a.author <> 6
"""


async def test_a_view_is_polled_by_its_key_and_its_times(resources: Resources, psql: Any, fake: FakeProvider) -> None:
    await open_articles(psql, 10)
    await psql.execute(STAMPED)
    await psql.execute(VIEW)
    said = {"table": "public.published", "columns": ("headline", "body"), "capture": "poll"}
    with pytest.raises(SourceError, match="--key"):
        await attached(resources, **said)
    done = await attached(resources, **said, key=("id",), poll_column="changed", dataset="published")
    await settled(resources, done.id)
    assert len(await texts_of(psql, done.id)) == 9
    fake.requests.clear()
    await psql.execute(
        "UPDATE public.articles SET title = 'Read me' WHERE id = 2; UPDATE public.articles SET author = 6 WHERE id = 3"
    )
    await looked(resources, done.id)
    await compare(psql)
    await looked(resources, done.id)
    found = await texts_of(psql, done.id)
    assert (len(found), found["public.published/2"].splitlines()[0]) == (8, "Read me")
    assert sent(fake) == 1
    (one,) = await attachments(resources)
    assert (one.capture, one.state, one.problems) == ("poll", "following", [])
    await psql.execute("DROP VIEW public.published")
    assert "was dropped" in (await attachments(resources))[0].problems[0]
    assert (await detach(resources, "public.published")).documents == 8


async def test_a_role_that_may_read_alone_polls_another_database(
    resources: Resources, servers: Servers, psql: Any, fake: FakeProvider
) -> None:
    async with elsewhere(servers, 5) as there, reader(there) as url:
        before = await there.objects()
        await there.psql.execute("ALTER TABLE public.articles ADD COLUMN at timestamp DEFAULT localtimestamp")
        done = await there.attached(resources, capture="poll", poll_column="at", url=url)
        await settled(resources, done.id)
        await there.psql.execute("INSERT INTO public.articles (title, at) VALUES ('new', localtimestamp)")
        await looked(resources, done.id)
        found = await texts_of(psql, done.id)
        assert (len(found), await there.objects()) == (6, before)
        (one,) = await attachments(resources)
        assert (one.problems, one.where is None) == ([], False)
        assert (await detach(resources, "articles")).left == []


REFUSED = {
    "no such column": ({"poll_column": "nope"}, "--poll-column names 'nope'"),
    "no time": ({"poll_column": "author"}, "it has to be a timestamp"),
    "a key with NULLs": ({"key": ("author",)}, "which is NULL in some rows"),
    "no such key": ({"key": ("nope",)}, "--key names 'nope'"),
    "triggers with a key": ({"capture": "triggers", "key": ("id",)}, "go with --capture poll"),
}


@pytest.mark.parametrize(("said", "words"), REFUSED.values(), ids=REFUSED)
async def test_what_can_not_be_polled_is_refused(
    resources: Resources, psql: Any, said: dict[str, Any], words: str
) -> None:
    await open_articles(psql, 3)
    await psql.execute("UPDATE public.articles SET author = NULL WHERE id = 1")
    with pytest.raises(SourceError, match=words):
        await attached(resources, **{"capture": "poll"} | said)
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0
