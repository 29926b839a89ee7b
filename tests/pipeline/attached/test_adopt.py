"""Vectors that a table has already are adopted if a sample agrees: only that is sent, and what they do not cover."""

from typing import Any

import numpy as np
import pytest

from evervec.errors import EvervecError, Refused, SourceError
from evervec.pipeline.attached import adopt as adopting
from evervec.pipeline.attached import intake, work
from evervec.pipeline.attached.adopt import Adopted, adopt
from evervec.pipeline.attached.waiting import until_taken_in
from evervec.pipeline.resources import Resources
from evervec.sources.attached.description import describe
from evervec.store.attached.adoption import Adoption
from tests.fakes.server import FakeProvider
from tests.fakes.vectors import expected_vector
from tests.pipeline.attached.tables import TEXT, attached, open_articles, require_true, settled, state
from tests.pipeline.indexing.indexed import sent

MODEL, WIDTH, ROWS = "embedder", 32, 60
EQUAL = """
SELECT count(*) FROM evervec.articles v JOIN public.articles a USING (id)
WHERE v.embedding_status = 'READY' AND v.embedding::vector <=> a.own::text::vector < 0.001
"""


async def open_own(psql: Any, type_: str = "vector(32)", model: str = MODEL, width: int = WIDTH) -> None:
    """Make articles that have vectors of what the default template makes of their text."""
    await open_articles(psql, ROWS)
    await psql.execute(f"ALTER TABLE public.articles ADD own {type_}")
    said = {
        row["id"]: f"articles {row['id']}\n\n{row['text']}"
        for row in await psql.fetch(f"SELECT id, {TEXT} AS text FROM public.articles")
    }
    opening, closing = ("{", "}") if type_.endswith("[]") else ("[", "]")
    for number, text in said.items():
        values = ",".join(f"{value:.7f}" for value in expected_vector(model, text, width))
        await psql.execute(
            f"UPDATE public.articles SET own = $1::text::{type_} WHERE id = $2", f"{opening}{values}{closing}", number
        )


def described(**more: Any) -> Any:
    return describe(table="public.articles", project="app", dataset="articles", text=TEXT, **more)


async def adopted(resources: Resources, **more: Any) -> tuple[Adopted, Adoption]:
    """Attach the articles and adopt their vectors; return the check and the counts."""
    done = await adopt(resources, "public.articles", "own", MODEL, **{"described": described()} | more)
    assert done.id is not None
    progress = await until_taken_in(resources, done.id)
    assert progress.error is None, progress
    found = await adopting.state(resources, done.id)
    assert found is not None and found.finished
    return done, found


@pytest.mark.parametrize("type_", ["vector(32)", "halfvec(32)", "vector", "real[]", "double precision[]", "jsonb"])
async def test_vectors_of_any_column_are_adopted_and_only_the_sample_is_sent(
    resources: Resources, psql: Any, fake: FakeProvider, type_: str
) -> None:
    await open_own(psql, type_)
    fake.requests.clear()
    done, found = await adopted(resources)
    assert (done.vectors, done.sample.drawn, done.sample.compared) == (ROWS, 50, 50)
    assert done.sample.cosine.min > 0.999
    assert found.adopted == ROWS
    await settled(resources, done.id)
    assert sent(fake) == 50
    if not type_.endswith("[]"):
        assert await psql.fetchval(EQUAL) == ROWS
    await require_true(psql)
    await psql.execute("UPDATE public.articles SET body = 'another' WHERE id = 3")
    await settled(resources, done.id)
    assert sent(fake) == 51


async def test_what_has_no_usable_vector_is_counted_and_embedded(
    resources: Resources, psql: Any, fake: FakeProvider
) -> None:
    await open_own(psql, "real[]")
    await psql.execute("UPDATE public.articles SET own = NULL WHERE id = 1")
    await psql.execute("UPDATE public.articles SET own[3] = 'NaN' WHERE id = 2")
    await psql.execute("UPDATE public.articles SET own = array_fill(0, ARRAY[32]) WHERE id = 3")
    await psql.execute("UPDATE public.articles SET own = '{1,2,3}' WHERE id = 4")
    await psql.execute("UPDATE public.articles SET own[3] = NULL WHERE id = 5")
    await psql.execute("UPDATE public.articles SET body = repeat('many words of a long text. ', 200) WHERE id = 6")
    await psql.execute("UPDATE public.articles SET title = NULL WHERE id = 7")
    fake.requests.clear()
    done, found = await adopted(resources)
    counts = (found.adopted, found.missing, found.unusable, found.several)
    assert counts == (ROWS - 7, 1, 4, 1)
    before = sent(fake)
    assert before == done.sample.compared
    await settled(resources, done.id)
    assert sent(fake) > before + 5
    await require_true(psql)


@pytest.mark.parametrize(
    ("type_", "model", "width", "words"),
    [
        ("vector(32)", "another", 32, ("are not those that embedder makes", "min", "p5", "--template")),
        ("vector(8)", MODEL, 8, ("have 8 dimensions", "32")),
    ],
)
async def test_vectors_that_do_not_match_are_refused_and_nothing_is_attached(
    resources: Resources, psql: Any, type_: str, model: str, width: int, words: tuple[str, ...]
) -> None:
    await open_own(psql, type_, model, width)
    with pytest.raises(Refused) as refused:
        await adopted(resources)
    assert all(word in str(refused.value) for word in words), refused.value
    assert not await psql.fetch("SELECT 1 FROM pg_trigger WHERE tgrelid = 'public.articles'::regclass")
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"described": None}, Refused, ("No table", "evervec adopt public.articles --column own", "--text SQL")),
        ({"model": "text-embedding-3-small"}, Refused, ("the active model is embedder", "evervec providers add")),
        ({"column": "title"}, SourceError, ("'title' is of type text", "halfvec")),
        ({"column": "nothing"}, SourceError, ("--column names 'nothing'",)),
    ],
)
async def test_what_can_not_be_adopted_says_why(
    resources: Resources, psql: Any, more: dict[str, Any], error: type[EvervecError], words: tuple[str, ...]
) -> None:
    await open_articles(psql, 3)
    await psql.execute("ALTER TABLE public.articles ADD own vector(32)")
    said = {"column": "own", "model": MODEL, "described": described()} | more
    with pytest.raises(error) as refused:
        await adopt(resources, "public.articles", said.pop("column"), said.pop("model"), **said)
    assert all(word in str(refused.value) for word in words), refused.value


async def test_a_table_without_any_vector_or_of_long_texts_alone_is_refused(resources: Resources, psql: Any) -> None:
    await open_own(psql)
    await psql.execute("UPDATE public.articles SET body = repeat('many words of a long text. ', 200)")
    with pytest.raises(Refused, match="none has a text that is one chunk"):
        await adopted(resources)
    await psql.execute("UPDATE public.articles SET own = NULL")
    with pytest.raises(Refused, match="it holds no vectors"):
        await adopted(resources)


async def test_a_dry_run_compares_and_changes_nothing(resources: Resources, psql: Any) -> None:
    await open_own(psql)
    done = await adopt(resources, "public.articles", "own", MODEL, described=described(), dry=True)
    assert (done.id, done.sample.compared) == (None, 50)
    assert await psql.fetchval("SELECT count(*) FROM evervec.sources") == 0


async def test_whoever_goes_on_after_a_crash_adopts_the_rest(
    resources: Resources, psql: Any, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_own(psql)
    monkeypatch.setattr(work, "ROWS_TOGETHER", 20)
    fake.requests.clear()
    apply = intake.Intake._apply

    async def killed(*given: Any) -> Any:
        if len(await state(psql)) >= 20:
            raise RuntimeError("killed")
        return await apply(*given)

    monkeypatch.setattr(intake.Intake, "_apply", killed)
    done = await adopt(resources, "public.articles", "own", MODEL, described=described())
    assert done.id is not None
    with pytest.raises(RuntimeError, match="killed"):
        await until_taken_in(resources, done.id)
    assert len(await state(psql)) == 20
    monkeypatch.setattr(intake.Intake, "_apply", apply)
    await settled(resources, done.id)
    found = await adopting.state(resources, done.id)
    assert found is not None and (found.adopted, found.finished) == (ROWS, True)
    assert sent(fake) == 50
    await require_true(psql)


async def test_a_table_that_is_attached_already_gets_what_it_still_misses(
    resources: Resources, psql: Any, fake: FakeProvider
) -> None:
    await open_own(psql)
    first = await attached(resources, where="id <= 10")
    await settled(resources, first.id)
    again = await attached(resources, replace=True)
    assert again.id is not None
    await until_taken_in(resources, again.id)
    await psql.execute("UPDATE public.articles SET body = 'changed since' WHERE id = 30")
    fake.requests.clear()
    done, found = await adopted(resources, described=None)
    assert (done.id, found.adopted, found.embedded, found.changed) == (first.id, ROWS - 11, 10, 1)
    await settled(resources, done.id)
    assert sent(fake) == 50 + 1
    await require_true(psql)


async def test_a_row_that_is_edited_before_it_is_taken_in_does_not_get_the_vector_of_its_former_text(
    resources: Resources, psql: Any
) -> None:
    await open_own(psql)
    done = await adopt(resources, "public.articles", "own", MODEL, described=described())
    await psql.execute("UPDATE public.articles SET body = 'changed since' WHERE id = 30")
    await settled(resources, done.id)
    found = await adopting.state(resources, done.id)
    assert found is not None and (found.adopted, found.changed) == (ROWS - 1, 1)
    vector = await psql.fetchval("SELECT embedding::vector::real[] FROM evervec.articles WHERE id = 30")
    text = f"articles 30\n\n{await psql.fetchval(f'SELECT {TEXT} FROM public.articles WHERE id = 30')}"
    assert float(np.dot(vector, expected_vector(MODEL, text, WIDTH))) > 0.999
