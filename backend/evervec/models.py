"""The tables for your own SQLModel and SQLAlchemy code, one class a table: select and join them (docs/models.md)."""

from evervec.store.schema.models.batch import BatchJob
from evervec.store.schema.models.documents import Chunk, Document
from evervec.store.schema.models.embeddings import Embedding
from evervec.store.schema.models.indexing import IndexRun
from evervec.store.schema.models.knowledge import Atom, AtomVersion, Topic
from evervec.store.schema.models.messages import Message
from evervec.store.schema.models.projects import Dataset, Project
from evervec.store.schema.models.providers import EmbeddingSpace, LlmProvider

__all__ = [
    "Atom",
    "AtomVersion",
    "BatchJob",
    "Chunk",
    "Dataset",
    "Document",
    "Embedding",
    "EmbeddingSpace",
    "IndexRun",
    "LlmProvider",
    "Message",
    "Project",
    "Topic",
]
