"""The vector store and the retriever for LangChain: its own standard suite, and what it leaves out."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests

from evervec import SemanticCore, SyncSemanticCore
from evervec.errors import Refused
from evervec.langchain import EvervecRetriever, EvervecVectorStore
from evervec.store import secrets

LONG = "\n\n".join(
    f"Paragraph {n} tells of birds that sing in the morning, and of nothing else at all." for n in range(200)
)


@pytest.fixture
def core(database_url: str, tmp_path: Any) -> Iterator[SyncSemanticCore]:
    with SyncSemanticCore(database_url, home=tmp_path, secret_key=secrets.new_key()) as opened:
        yield opened


class TestStandardSuite(VectorStoreIntegrationTests):
    """LangChain's suite, in which Evervec's local model embeds."""

    @pytest.fixture
    def vectorstore(self, core: SyncSemanticCore) -> EvervecVectorStore:
        return EvervecVectorStore(core, dataset="standard")


def test_a_filter_a_condition_and_a_score(core: SyncSemanticCore) -> None:
    documents = [
        Document(page_content=f"bird {n}", metadata={"lang": "en" if n % 2 else "de", "n": n}) for n in range(6)
    ]
    store = EvervecVectorStore(core)
    ids = store.add_documents(documents)
    assert {one.id for one in store.similarity_search("birds", k=6, filter={"lang": "en"})} == set(ids[1::2])
    (found,) = store.similarity_search("birds", k=6, filter={"lang": "en"}, where="metadata.n > 3")
    assert found == documents[5].model_copy(update={"id": ids[5]})
    scored = store.similarity_search_with_relevance_scores("bird 2", k=1)
    assert (scored[0][0].page_content, round(scored[0][1], 2)) == ("bird 2", 1.0)
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("bird 3")[0].page_content == "bird 3"
    assert (store.delete([ids[0]]), store.delete([ids[0]])) == (True, False)


def test_a_document_of_many_chunks_is_one_hit_and_whole(core: SyncSemanticCore) -> None:
    store = EvervecVectorStore(core)
    store.add_texts([LONG, "cold soup"], ids=["long", "soup"])
    assert core.get("long").chunks > 8  # type: ignore[union-attr]  # it is there
    found = store.similarity_search("birds in the morning", k=2)
    assert [(one.id, one.page_content) for one in found] == [("long", LONG), ("soup", "cold soup")]


def test_what_is_no_way_to_make_or_fill_a_store_says_so(core: SyncSemanticCore) -> None:
    with pytest.raises(Refused, match="The provider of the dataset embeds, not LangChain"):
        EvervecVectorStore.from_texts(["a"], DeterministicFakeEmbedding(size=6), core=core)
    store = EvervecVectorStore.from_texts(["a"], None, ids=["1"], core=core, dataset="made")
    assert [one.id for one in store.get_by_ids(["2", "1"])] == ["1"]
    with pytest.raises(Refused, match="1 texts, 2 ids and 1 metadatas"):
        store.add_texts(["a"], ids=["1", "2"])
    with pytest.raises(Refused, match="by their ids"):
        store.delete()


async def test_a_retriever_returns_rows_of_any_kind_in_the_callers_loop(database_url: str, tmp_path: Any) -> None:
    async with SemanticCore.open(database_url, home=tmp_path, secret_key=secrets.new_key()) as core:
        store = EvervecVectorStore(core, dataset="notes")
        await store.aadd_texts(["birds sing", "cold soup"], [{"lang": "en"}, {"lang": "de"}], ids=["a", "b"])
        (found,) = await EvervecRetriever(core=core, k=1, kind="chunk").ainvoke("what do birds do?")
        assert found.page_content == "birds sing"
        assert {name: found.metadata[name] for name in ("lang", "kind", "dataset", "document")} == {
            "lang": "en", "kind": "chunk", "dataset": "notes", "document": "a",
        }  # fmt: skip
        with pytest.raises(Refused, match="can not wait for itself: await it"):
            store.similarity_search("birds")
