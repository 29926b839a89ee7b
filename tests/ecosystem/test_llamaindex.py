"""The store of nodes and the retriever for LlamaIndex. LlamaIndex publishes no suite for stores."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from evervec import SemanticCore, SyncSemanticCore
from evervec.errors import Refused
from evervec.llamaindex import EvervecNodeRetriever, EvervecNodeStore
from evervec.store import secrets


@pytest.fixture
def core(database_url: str, tmp_path: Any) -> Iterator[SyncSemanticCore]:
    with SyncSemanticCore(database_url, home=tmp_path, secret_key=secrets.new_key()) as opened:
        yield opened


def nodes() -> list[TextNode]:
    """Return six nodes of two documents."""
    return [
        TextNode(
            id_=f"n{n}",
            text=f"bird {n}",
            metadata={"lang": "en" if n % 2 else "de", "n": n, "tags": ["a", str(n)]},
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document {n // 3}")},
        )
        for n in range(6)
    ]


def filtered(*wanted: tuple[str, FilterOperator, Any], by: FilterCondition = FilterCondition.AND) -> MetadataFilters:
    filters: list[Any] = [MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in wanted]
    return MetadataFilters(filters=filters, condition=by)


def found(store: EvervecNodeStore, filters: MetadataFilters | None, k: int = 6) -> list[str]:
    answer = store.query(VectorStoreQuery(query_str="birds", similarity_top_k=k, filters=filters))
    return sorted(answer.ids or [])


def test_nodes_come_back_as_they_were_and_go_with_their_document(core: SyncSemanticCore) -> None:
    store = EvervecNodeStore(core, dataset="nodes")
    store.delete("document 0")
    assert (store.get_nodes(["n0"]), found(store, None)) == ([], [])
    assert store.add(nodes()) == store.add(nodes()) == [f"n{n}" for n in range(6)]
    assert store.get_nodes(["n3", "none", "n1"]) == [nodes()[3], nodes()[1]]
    answer = store.query(VectorStoreQuery(query_str="bird 4", similarity_top_k=1))
    assert (answer.nodes, answer.ids, [round(one, 2) for one in answer.similarities or []]) == (
        [nodes()[4]],
        ["n4"],
        [1.0],
    )
    store.delete("document 0")
    store.delete_nodes(["n3", "none"])
    assert found(store, None) == ["n4", "n5"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (filtered(("lang", FilterOperator.EQ, "en")), ["n1", "n3", "n5"]),
        (filtered(("lang", FilterOperator.EQ, "en"), ("n", FilterOperator.GT, 1)), ["n3", "n5"]),
        (filtered(("n", FilterOperator.LTE, 0), ("n", FilterOperator.IN, [2, 5]), by=FilterCondition.OR), ["n0", "n2", "n5"]),
        (filtered(("n", FilterOperator.NIN, [0, 1, 2, 3])), ["n4", "n5"]),
        (filtered(("tags", FilterOperator.CONTAINS, "4")), ["n4"]),
        (filtered(("none", FilterOperator.IS_EMPTY, None), ("n", FilterOperator.NE, 1)), ["n0", "n2", "n3", "n4", "n5"]),
        (MetadataFilters(filters=[filtered(("n", FilterOperator.LT, 1)), filtered(("n", FilterOperator.GTE, 5))], condition=FilterCondition.OR), ["n0", "n5"]),
    ],
)  # fmt: skip
def test_filters_are_conditions(core: SyncSemanticCore, filters: MetadataFilters, expected: list[str]) -> None:
    store = EvervecNodeStore(core)
    store.add(nodes())
    assert found(store, filters) == expected


def test_what_can_not_be_answered_says_so(core: SyncSemanticCore) -> None:
    store = EvervecNodeStore(core)
    for query in (
        VectorStoreQuery(query_embedding=[0.1, 0.2]),
        VectorStoreQuery(query_str="birds", mode=VectorStoreQueryMode.MMR),
        VectorStoreQuery(query_str="birds", filters=filtered()),
        VectorStoreQuery(query_str="birds", filters=filtered(("lang", FilterOperator.TEXT_MATCH, "e"))),
        VectorStoreQuery(query_str="birds", filters=filtered(("lang", FilterOperator.EQ, "e"), by=FilterCondition.NOT)),
    ):
        with pytest.raises(Refused):
            store.query(query)
    for call in (store.get_nodes, store.delete_nodes):
        with pytest.raises(Refused, match="by their ids"):
            call(filters=filtered(("n", FilterOperator.EQ, 1)))


async def test_a_retriever_is_awaited_in_the_callers_loop(database_url: str, tmp_path: Any) -> None:
    async with SemanticCore.open(database_url, home=tmp_path, secret_key=secrets.new_key()) as core:
        store = EvervecNodeStore(core)
        await store.async_add(nodes())
        retriever = EvervecNodeRetriever(store, k=1, filters=filtered(("n", FilterOperator.LT, 3)))
        (best,) = await retriever.aretrieve("bird 2")
        assert (best.node, round(best.score or 0, 2)) == (nodes()[2], 1.0)
        await store.adelete("document 0")
        assert await retriever.aretrieve("bird 2") == []
