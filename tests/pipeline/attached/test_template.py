"""Another template is another text: with `replace` all rows are read again, and only what differs is embedded again."""

from typing import Any

import pytest

from evervec.errors import Refused, SourceError
from evervec.pipeline.resources import Resources
from tests.fakes.server import FakeProvider
from tests.pipeline.attached.tables import attached, open_articles, require_true, settled
from tests.pipeline.indexing.indexed import sent


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
