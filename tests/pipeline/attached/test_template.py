"""Another template is another text: with `replace` all rows are read again, and only what differs is embedded again."""

from typing import Any

import pytest

from evervec.errors import Refused, SourceError
from evervec.pipeline.embedding import providers
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.pipeline.spaces.flip import activate
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider
from tests.pipeline.attached.tables import attached, open_articles, require_true, settled, state
from tests.pipeline.indexing.indexed import sent

SEARCHED_TEXTS = "SELECT c.vector_text FROM evervec.chunks c JOIN evervec.datasets USING (space_id)"


async def test_a_template_that_changes_embeds_what_differs_again(
    resources: Resources, psql: Any, fake: FakeProvider
) -> None:
    await open_articles(psql, 12)
    await psql.execute("UPDATE public.articles SET tenant = NULL WHERE id <= 8")
    done = await attached(resources, text=None, template="{title}\n{body}")
    await settled(resources, done.id)
    await require_true(psql, text="title || E'\\n' || body")
    assert (await attached(resources, text=None, template="{title}\n{body}")).state == "unchanged"

    longer = "{title}\n{body}\nof {tenant}"
    with pytest.raises(Refused, match="with another --template"):
        await attached(resources, text=None, template=longer)
    fake.requests.clear()
    again = await attached(resources, text=None, template=longer, replace=True)
    assert (again.id, again.state, again.reads) == (done.id, "replaced", ["title", "body", "tenant"])
    await settled(resources, again.id)
    await require_true(psql, text="title || E'\\n' || body || coalesce(E'\\nof ' || tenant, '')")
    assert sent(fake) == 4
    await psql.execute("UPDATE public.articles SET tenant = 'another' WHERE id IN (2, 3)")
    await settled(resources, again.id)
    assert sent(fake) == 6


async def test_one_text_is_given(resources: Resources, psql: Any) -> None:
    await open_articles(psql, 1)
    for said in ({"template": "{title}"}, {"text": None}, {"columns": ["title"], "template": "{title}"}):
        with pytest.raises(SourceError, match="one of --text, --columns and --template"):
            await attached(resources, **said)


async def test_another_template_of_the_model_chunks_attached_rows_for_a_space_of_its_own(
    resources: Resources, psql: Any, fake: FakeProvider
) -> None:
    await open_articles(psql, 6)
    done = await attached(resources, fields=("author",))
    await settled(resources, done.id)
    before = await state(psql)
    await providers.add(
        resources, ProviderDraft("fake", "ollama", base_url=fake.url, model="embedder", template="{title}: {text}")
    )
    fake.requests.clear()
    await start(resources, BuildOptions("fake"))
    await fill(resources, whole=True)
    assert await state(psql) == before
    await activate(resources)
    await psql.execute("UPDATE public.articles SET author = 99 WHERE id = 3")
    await settled(resources, done.id)
    after = await state(psql)
    assert {uri: row["key"] for uri, row in after.items()} == {uri: row["key"] for uri, row in before.items()}
    assert after["public.articles/3"]["fields"] == '{"author": 99}'
    assert after["public.articles/4"]["fields"] == before["public.articles/4"]["fields"]
    texts = [row[0] for row in await psql.fetch(SEARCHED_TEXTS)]
    assert len(texts) == 6
    assert all(text.startswith("articles ") and ": Title" in text for text in texts)
    assert sent(fake) == 6
    await require_true(psql)
