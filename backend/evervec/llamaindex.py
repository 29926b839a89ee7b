"""Evervec for LlamaIndex (`pip install 'evervec[llamaindex]'`): a vector store of nodes, and a retriever over it.

Texts are embedded by the provider of their dataset: a query is a text, and an embedding of LlamaIndex is refused.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from evervec.domain.conditions.reading import read
from evervec.domain.conditions.tree import Condition
from evervec.errors import Refused, UnknownDatasetError, UnknownProjectError
from evervec.extras import extra
from evervec.library.blocking import SyncSemanticCore
from evervec.library.core import SemanticCore
from evervec.library.documents import LibraryDocument

with extra("llamaindex", "The vector store for LlamaIndex"):
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

T = TypeVar("T")
COMPARED = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "le",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "ge",
    FilterOperator.CONTAINS: "eq",  # a list is equal to each of its values
}
REFERENCE = "ref_doc_id"
MOST_DELETED = 1_000
"""Nodes of a document that are deleted at a time."""


class EvervecNodeStore(BasePydanticVectorStore):
    """The nodes of a dataset, each a document by its id. A node that is longer than a chunk is found by its best chunk.

    Its methods block in any thread, those that begin with `a` are awaited. With `mode="sync"` a node is found as soon as it
    was added; with `async` workers or a batch job embed it.
    """

    stores_text: bool = True
    is_embedding_query: bool = False

    _core: SemanticCore = PrivateAttr()
    _place: dict[str, str] = PrivateAttr()
    _mode: str = PrivateAttr()

    def __init__(
        self,
        core: SemanticCore | SyncSemanticCore,
        *,
        dataset: str | None = None,
        project: str | None = None,
        mode: str = "sync",
    ) -> None:
        super().__init__(stores_text=True)
        self._core = core._core if isinstance(core, SyncSemanticCore) else core
        self._place = {"project": project or self._core._project, "dataset": dataset or self._core._dataset}
        self._mode = mode

    @property
    def client(self) -> SemanticCore:
        """Return the core."""
        return self._core

    async def async_add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Write nodes under their ids, and return these. A node that is there is replaced."""
        await self._core.ingest([_document(one) for one in nodes], mode=self._mode, **self._place)
        return [one.node_id for one in nodes]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes that are there, in the order of their ids. Raises `Refused` for filters, and without ids."""
        if filters is not None or node_ids is None:
            raise Refused(reason="Name the nodes by their ids; `query` takes filters.")
        found = {one.uri: one for one in await self._or_nothing(self._core.get_many(node_ids, **self._place), [])}
        return [_node(found[one].text, found[one].metadata) for one in node_ids if one in found]

    async def adelete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document."""
        listed = partial(self._core.list, metadata={REFERENCE: ref_doc_id}, limit=MOST_DELETED, **self._place)
        while found := await self._or_nothing(listed(), []):
            await self._core.delete([one.uri for one in found], **self._place)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any
    ) -> None:
        """Delete nodes by their ids. Raises `Refused` for filters, and without ids."""
        if filters is not None or node_ids is None:
            raise Refused(reason="Name the nodes to delete by their ids.")
        await self._or_nothing(self._core.delete(node_ids, **self._place), 0)

    async def aquery(self, query: VectorStoreQuery, **how: Any) -> VectorStoreQueryResult:
        """Return the nodes nearest to `query_str` that pass the filters, with their cosine similarities.

        Raises `Refused` for a query without a text, of another mode, and for a filter that Evervec can not answer.
        """
        if query.query_str is None or query.mode is not VectorStoreQueryMode.DEFAULT:
            raise Refused(reason="A query is a text (`query_str`), in the default mode: Evervec embeds it itself.")
        where = None if query.filters is None else _all(query.filters)
        options: dict[str, Any] = {"mode": "vector", **how, **self._place, "where": where}
        searched = self._core.search(
            query.query_str, query.similarity_top_k, **{**options, "kind": "chunk", "by_document": True}
        )
        hits = await self._or_nothing(searched, [])
        scores = {hit.place.document: hit.score for hit in hits if hit.place is not None}
        nodes = await self.aget_nodes(list(scores))
        ids = [one.node_id for one in nodes]
        return VectorStoreQueryResult(nodes=nodes, similarities=[scores[one] for one in ids], ids=ids)

    def add(self, nodes: Sequence[BaseNode], **how: Any) -> list[str]:
        """Write nodes as `async_add` does."""
        return self._blocking(partial(self.async_add, nodes, **how))

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes as `aget_nodes` does."""
        return self._blocking(partial(self.aget_nodes, node_ids, filters))

    def delete(self, ref_doc_id: str, **how: Any) -> None:
        """Delete the nodes of a document as `adelete` does."""
        self._blocking(partial(self.adelete, ref_doc_id, **how))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **how: Any
    ) -> None:
        """Delete nodes as `adelete_nodes` does."""
        self._blocking(partial(self.adelete_nodes, node_ids, filters, **how))

    def query(self, query: VectorStoreQuery, **how: Any) -> VectorStoreQueryResult:
        """Return nodes as `aquery` does."""
        return self._blocking(partial(self.aquery, query, **how))

    def _blocking(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._core._opening.block(call)

    async def _or_nothing(self, call: Coroutine[Any, Any, Any], nothing: Any) -> Any:
        """Await a call; the dataset begins with its first write, and has nothing until then."""
        try:
            return await call
        except (UnknownDatasetError, UnknownProjectError):
            return nothing


class EvervecNodeRetriever(BaseRetriever):
    """Retrieves the `k` nodes of a store that are nearest to a text, with filters of LlamaIndex."""

    def __init__(self, store: EvervecNodeStore, *, k: int = 4, filters: MetadataFilters | None = None) -> None:
        super().__init__()
        self._store, self._k, self._filters = store, k, filters

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(self._store.query(self._asked(query_bundle)))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(await self._store.aquery(self._asked(query_bundle)))

    def _asked(self, bundle: QueryBundle) -> VectorStoreQuery:
        return VectorStoreQuery(query_str=bundle.query_str, similarity_top_k=self._k, filters=self._filters)


def _scored(found: VectorStoreQueryResult) -> list[NodeWithScore]:
    pairs = zip(found.nodes or (), found.similarities or (), strict=True)
    return [NodeWithScore(node=node, score=score) for node, score in pairs]


def _document(node: BaseNode) -> LibraryDocument:
    metadata = node_to_metadata_dict(node, remove_text=True)
    return LibraryDocument.from_text(node.node_id, node.get_content(MetadataMode.NONE), metadata=metadata)


def _node(text: str, metadata: dict[str, Any]) -> BaseNode:
    node = metadata_dict_to_node(metadata)
    if isinstance(node, TextNode):
        node.text = text
    return node


def _all(filters: MetadataFilters) -> Condition:
    """Return filters as one condition over the metadata of documents."""
    parts = [_all(one) if isinstance(one, MetadataFilters) else _one(one) for one in filters.filters]
    match filters.condition, parts:
        case _, []:
            raise Refused(reason="There is no filter in these filters: leave them out.")
        case FilterCondition.OR, [first, *rest]:
            for one in rest:
                first = first | one
            return first
        case ((FilterCondition.AND | None), [first, *rest]):
            for one in rest:
                first = first & one
            return first
        case _:
            raise Refused(reason=f"Filters joined by {filters.condition} can not be answered: use AND or OR.")


def _one(wanted: MetadataFilter) -> Condition:
    field = f"metadata.{wanted.key}"
    match wanted.operator:
        case FilterOperator.IN:
            return read({"op": "in", "field": field, "values": wanted.value})
        case FilterOperator.NIN:
            return read({"op": "not", "of": {"op": "in", "field": field, "values": wanted.value}})
        case FilterOperator.IS_EMPTY:
            return read({"op": "missing", "field": field})
        case operator if operator in COMPARED:
            return read({"op": COMPARED[operator], "field": field, "value": wanted.value})
        case operator:
            raise Refused(
                reason=f"The filter {operator} can not be answered. Those that can: {', '.join(COMPARED)}, in, nin."
            )
