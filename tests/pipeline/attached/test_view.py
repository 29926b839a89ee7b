"""An attachment's view is made with it, says what became of each row, and goes with it."""

from dataclasses import replace
from typing import Any

import pytest

from evervec.errors import Refused
from evervec.pipeline.attached.detach import detach
from evervec.pipeline.attached.report import attachments
from evervec.pipeline.resources import Resources
from evervec.store.database.session import Database
from tests.pipeline.attached.tables import attached, open_articles, settled

NEAREST = """
SELECT a.* FROM articles a JOIN evervec.articles v USING (id) WHERE a.author = 3
ORDER BY v.embedding <=> (SELECT embedding FROM evervec.articles WHERE id = 17) LIMIT 10
"""


async def test_the_view_joins_the_table_and_goes_with_the_attachment(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 30)
    before = await psql.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'evervec'::regnamespace ORDER BY 1")
    done = await attached(resources, text="title || 10 / (author - 6)", title="title")
    assert done.view == "evervec.articles"
    await settled(resources, done.id)
    rows = await psql.fetch(NEAREST)
    assert rows[0]["id"] == 17
    assert {row["author"] for row in rows} == {3}
    failed = await psql.fetch(
        "SELECT id, error_message FROM evervec.articles WHERE embedding_status = 'FAILED' ORDER BY id"
    )
    assert [row["id"] for row in failed] == [6, 13, 20, 27]
    assert "division by zero" in failed[0]["error_message"]
    (report,) = await attachments(resources)
    assert (report.view, report.problems) == ("evervec.articles", [])
    await detach(resources, "public.articles")
    assert (
        await psql.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'evervec'::regnamespace ORDER BY 1")
        == before
    )


async def test_a_view_that_was_dropped_is_named_and_made_again(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 3)
    await attached(resources)
    await psql.execute("DROP VIEW evervec.articles")
    (report,) = await attachments(resources)
    assert report.view is None
    assert any("Its view is gone" in problem for problem in report.problems)
    again = await attached(resources)
    assert (again.state, again.view) == ("unchanged", "evervec.articles")
    replaced = await attached(resources, where="id < 3", replace=True)
    assert (replaced.state, replaced.view) == ("replaced", "evervec.articles")


async def test_a_role_of_our_schemas_name_is_told_and_attaches_the_table_all_the_same(
    resources: Resources, psql: Any
) -> None:
    await open_articles(psql, 3)
    name = await psql.fetchval("SELECT current_database()")
    await psql.execute(f'ALTER DATABASE {name} SET search_path = "$user", public')
    opened = await Database(resources.database.url).open()
    resources = replace(resources, database=opened)
    first = await attached(resources, "articles")
    assert (first.state, first.table) == ("attached", "public.articles")
    (warning,) = first.warnings
    assert "articles without a schema is evervec.articles now" in warning
    assert 'ALTER ROLE evervec SET search_path = "public"' in warning
    again = await attached(resources, "articles")
    assert (again.state, again.table, again.warnings) == ("unchanged", "public.articles", [warning])
    await opened.aclose()


async def test_a_view_that_others_read_keeps_the_table_attached(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 3)
    done = await attached(resources)
    await psql.execute("CREATE VIEW public.mine AS SELECT id FROM evervec.articles")
    with pytest.raises(Refused, match="view mine depends on"):
        await detach(resources, "public.articles")
    await settled(resources, done.id)
    assert await psql.fetchval("SELECT count(*) FROM public.mine") == 3


async def test_one_view_for_the_datasets_of_a_column(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 9)
    done = await attached(resources, dataset_column="tenant")
    assert done.view == "evervec.articles"
    await settled(resources, done.id)
    rows = await psql.fetch("SELECT id, dataset FROM evervec.articles ORDER BY id")
    assert [tuple(row) for row in rows] == [(n, f"t{n % 3}") for n in range(1, 10)]


async def test_two_projects_have_two_views(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 3)
    first, second = await attached(resources), await attached(resources, project="other")
    assert (first.view, second.view) == ("evervec.articles", "evervec.articles_rows")
    await settled(resources, first.id)
    await settled(resources, second.id)
    for view in (first.view, second.view):
        assert await psql.fetchval(f"SELECT count(*) FROM {view}") == 3
