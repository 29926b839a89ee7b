"""Whatever differs between two spaces: width, provider, model, template or the size of chunks, the same change works."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from evervec.pipeline.embedding import providers
from evervec.pipeline.embedding.embed import embed_dataset
from evervec.pipeline.resources import Resources
from evervec.pipeline.spaces import flip, report
from evervec.pipeline.spaces.build import BuildOptions, fill, start
from evervec.settings import Settings
from evervec.store import secrets
from evervec.store.datasets import DatasetRef
from evervec.store.providers import ProviderDraft
from tests.fakes.server import FakeProvider
from tests.pipeline.indexing.indexed import ingest, put
from tests.pipeline.search.meaning import search
from tests.pipeline.spaces.spaced import page, settled, write

LONG = "# Rivers\n\n" + "\n\n".join(
    f"Paragraph {n} tells of river {n}, of its source and of the towns along it." for n in range(60)
)


@dataclass(frozen=True)
class Case:
    """Another space: the provider to add, if it is another one, and the options of the build."""

    draft: ProviderDraft | None
    options: BuildOptions
    width: int = 32


CASES = {
    "another width": Case(ProviderDraft("next", "ollama", model="wider"), BuildOptions("next"), 48),
    "another provider": Case(
        ProviderDraft("next", "openai", model="embedder", api_key="a-key"), BuildOptions("next"), 32
    ),
    "another model of the same width": Case(ProviderDraft("next", "ollama", model="second"), BuildOptions("next")),
    "another template": Case(None, BuildOptions("fake", template="{text} of {title}")),
    "smaller chunks": Case(None, BuildOptions("fake", chunk_tokens=64)),
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings that can encrypt a key."""
    return settings.model_copy(update={"secret_key": SecretStr(secrets.new_key())})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_another_space_of_any_kind_is_built_searched_and_left_again(
    resources: Resources, dataset: DatasetRef, fake: FakeProvider, psql: Any, case: Case
) -> None:
    fake.widths["wider"] = 48
    if case.draft is not None:
        await providers.add(resources, replace(case.draft, base_url=fake.url), activate=False)
    await write(resources, dataset, "one", "two")
    await page(resources, dataset, LONG)
    await settled(resources, dataset)
    (planned,) = await report.plan(resources, case.options)
    assert (planned.rows > 2, planned.documents) == (True, 1)
    former = await _chunks(psql, 1)
    (begun,) = await start(resources, case.options)
    assert begun.space_id != dataset.space_id
    await fill(resources)
    await flip.activate(resources)
    hit = (await search(resources, "one", k=1)).hits[0]
    assert (hit.text, hit.score) == ("one", pytest.approx(1, abs=1e-3))
    await _require_space(psql, begun.space_id, case.width)
    assert await _chunks(psql, 1) == former
    changed = await _chunks(psql, begun.space_id)
    assert (len(changed) > len(former)) == (case.options.chunk_tokens is not None)
    assert (changed == former) == (case.options.template is None and case.options.chunk_tokens is None)
    # the text of a document is the same however it is cut
    assert "".join(await _contents(psql, begun.space_id)) == "".join(await _contents(psql, 1)) == LONG
    await write(resources, dataset, "three")
    await embed_dataset(resources, dataset.id)
    await fill(resources)
    await flip.roll_back(resources)
    assert (await search(resources, "three", k=1)).hits[0].text == "three"
    await _require_space(psql, 1, 32)
    assert (await start(resources, case.options)) == []  # after a rollback it is the next one again


async def test_a_dataset_that_a_folder_fills_is_indexed_into_the_space_that_is_searched_and_the_former_one(
    resources: Resources, psql: Any, tmp_path: Path
) -> None:
    put(tmp_path / "rivers.md", "# Rivers\n\nThe Drava is a river.\n")
    await ingest(resources, tmp_path, dataset="notes")
    (begun,) = await start(resources, BuildOptions("fake", template="{text} of {title}"), dataset="notes")
    await fill(resources)
    await flip.activate(resources, dataset="notes")
    put(tmp_path / "rivers.md", "# Rivers\n\nThe Mura is a river, too.\n")
    await ingest(resources, tmp_path, dataset="notes")
    await fill(resources)
    for space_id in (1, begun.space_id):
        (text,) = await _contents(psql, space_id)
        assert "Mura" in text
    await flip.roll_back(resources, dataset="notes")
    assert "Mura" in (await search(resources, "river", k=1)).hits[0].text


async def _require_space(psql: Any, space_id: int, width: int) -> None:
    """Require that what is searched is whole, in one space, of one width."""
    row = await psql.fetchrow(
        "SELECT array_agg(DISTINCT e.space_id) AS spaces, array_agg(DISTINCT vector_dims(e.embedding)) AS widths, "
        "count(*) FILTER (WHERE e.embedding IS NULL) AS missing FROM embeddings e "
        "JOIN datasets d ON d.id = e.dataset_id AND d.space_id = e.space_id"
    )
    assert tuple(row) == ([space_id], [width], 0)


async def _chunks(psql: Any, space_id: int) -> list[str]:
    rows = await psql.fetch("SELECT vector_text FROM chunks WHERE space_id = $1 ORDER BY ordinal", space_id)
    return [row[0] for row in rows]


async def _contents(psql: Any, space_id: int) -> list[str]:
    rows = await psql.fetch("SELECT content FROM chunks WHERE space_id = $1 ORDER BY ordinal", space_id)
    return [row[0] for row in rows]
