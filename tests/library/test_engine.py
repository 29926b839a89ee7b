"""The engine's functions under the names that people know, awaited and blocking."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from evervec import Document, SemanticCore, SyncSemanticCore, engine
from evervec.domain.documents.document import IncomingDocument, SkippedDocument
from evervec.errors import BadResponseError, ConfigError, Refused
from tests.fakes.vectors import expected_vectors
from tests.pipeline.indexing.shop import described, keep, open_shop

TEXTS = [f"text number {n}" for n in range(5)]


async def test_the_smallest_project_first_its_datasets_and_its_documents_without_chunks(
    local: SemanticCore, psql: Any
) -> None:
    for project, texts in (("large", TEXTS), ("small", TEXTS[:1])):
        documents = [Document.from_text(text, text) for text in texts]
        await local.ingest(documents, mode="async", project=project, dataset="notes")
    found = await engine.get_projects_with_vectorization_count(local)
    assert [pending for _, _, pending in found] == [1, 5]
    (small,) = await engine.get_project_datasets(local, str(found[0][0]))
    assert (small.project, small.slug) == ("small", "notes")
    await psql.execute(
        "INSERT INTO evervec.documents (dataset_id, uri, content) VALUES ($1, 'raw', 'still to chunk')", small.id
    )
    (raw,) = await engine.get_files_needing_chunking(local, small.id)
    assert (raw.document.uri, raw.document.text) == ("raw", "still to chunk")
    await psql.execute("UPDATE evervec.datasets SET deleted_at = now() WHERE id = $1", small.id)
    assert await engine.get_project_datasets(local, found[0][0]) == []
    assert await engine.get_project_datasets(local, uuid4()) == []


async def test_a_program_embeds_by_itself_and_an_edit_meanwhile_is_not_overwritten(
    local: SemanticCore, psql: Any
) -> None:
    await local.ingest([Document.from_text(text, text) for text in TEXTS], mode="async")
    ((project_id, _, _),) = await engine.get_projects_with_vectorization_count(local)
    (dataset,) = await engine.get_project_datasets(local, project_id)
    first = await engine.get_non_vectorized_chunks(local, dataset.id, limit=2)
    rest = await engine.get_non_vectorized_chunks(local, dataset.id, after=first[-1].vector_id)
    chunks = [*first, *rest]
    assert [one.text for one in chunks] == TEXTS
    assert (
        await engine.get_max_vector_id(local, dataset.id)
        == await engine.get_max_vector_id(local)
        == chunks[-1].vector_id
    )
    assert await engine.get_max_vector_id(local, uuid4()) == 0

    width = await psql.fetchval("SELECT dimensions FROM evervec.embedding_spaces WHERE id = $1", dataset.space_id)
    vectors = expected_vectors("mine", TEXTS, width)
    spoiled = vectors.copy()
    spoiled[3] = np.nan
    for wrong, error in ((vectors[:3], BadResponseError), (vectors[:, 1:], ConfigError), (spoiled, Refused)):
        with pytest.raises(error):
            await engine.update_vectors_bulk(local, chunks, wrong)
    await psql.execute("UPDATE evervec.chunks SET vector_text = 'edited' WHERE id = $1", chunks[2].id)
    written = await engine.update_vectors_bulk(local, chunks, vectors)
    assert written == {one.vector_id for one in chunks} - {chunks[2].vector_id}
    (left,) = await engine.get_non_vectorized_chunks(local, dataset.id)
    assert left.text == "edited"
    stored = await psql.fetchval(
        "SELECT embedding::text FROM evervec.embeddings WHERE vector_id = $1", chunks[4].vector_id
    )
    assert np.allclose(np.fromstring(stored.strip("[]"), sep=",", dtype=np.float32), vectors[4], atol=1e-2)
    assert await engine.update_vectors_bulk(local, [], vectors[:0]) == set()


def test_mirrors_are_built_and_checked_without_an_event_loop(database_url: str, how: dict[str, Any]) -> None:
    with SyncSemanticCore(database_url, **how) as core:
        core.ingest([Document.from_text(text, text) for text in TEXTS], mode="sync")
        (built,) = blocking(engine.rebuild_from_database(core, dataset="documents"))
        assert built.holds
        (checked,) = blocking(engine.check_index_sync(core, dataset="documents", deep=True))
        assert checked.in_sync
        ((project_id, _, pending),) = blocking(engine.get_projects_with_vectorization_count(core))
        (dataset,) = blocking(engine.get_project_datasets(core, project_id))
        folder = core._core._resources.settings.mirrors
        path = engine.get_faiss_index_path(folder, project_id, dataset.id)
        assert engine.get_faiss_index_path(str(folder), str(project_id), str(dataset.id)) == path
        assert (path.is_file(), path, pending) == (True, Path(folder) / str(project_id) / f"{dataset.id}.bin", 0)
        with pytest.raises(Refused, match="'x' is not an id"):
            engine.get_faiss_index_path(folder, "x", dataset.id)


def blocking(answer: Any) -> Any:
    """Return the answer of a function of a blocking core, which its type calls awaitable."""
    return answer


async def test_records_are_read_by_their_ids_and_indexed(local: SemanticCore, psql: Any) -> None:
    await open_shop(psql, orders=3)
    dataset_id = await keep(local._resources, described())
    found = await engine.extract_data_by_ids(local, dataset_id, {"orders": [2, 99]})
    assert [type(one) for one in found] == [IncomingDocument, SkippedDocument]
    run = await engine.index_dataset(local, str(dataset_id), {"orders": [2]})
    assert (run.state, run.counts.documents_new) == ("done", 1)
    assert (await engine.index_dataset(local, dataset_id, full_rebuild=True)).counts.documents_new == 2
