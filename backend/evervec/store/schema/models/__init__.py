"""One class a table. Alembic compares the migrations with them; `evervec.models` offers some of them to others."""

from evervec.store.schema.columns import metadata
from evervec.store.schema.models.attached import AttachedChange, AttachedFailure
from evervec.store.schema.models.batch import BatchItem, BatchJob, MediaFile
from evervec.store.schema.models.documents import Chunk, ChunkWork, Document
from evervec.store.schema.models.embeddings import Embedding, EmbedWork, VectorTombstone
from evervec.store.schema.models.indexing import DocumentSource, IndexRun
from evervec.store.schema.models.knowledge import Atom, AtomLink, AtomSource, AtomVersion, Topic
from evervec.store.schema.models.leases import NamedLease
from evervec.store.schema.models.messages import ExtractWork, Message
from evervec.store.schema.models.mirrors import MirrorReport, RecallCheck
from evervec.store.schema.models.projects import Dataset, Project
from evervec.store.schema.models.providers import (
    DatasetSpace,
    EmbeddingSpace,
    LlmProvider,
    ProviderBreaker,
    SpaceProbe,
)
from evervec.store.schema.models.repairs import TriggerRepair
from evervec.store.schema.models.spend import BudgetRecord, Spend
from evervec.store.schema.models.words import RowWords

__all__ = [
    "Atom",
    "AtomLink",
    "AtomSource",
    "AtomVersion",
    "AttachedChange",
    "AttachedFailure",
    "BatchItem",
    "BatchJob",
    "BudgetRecord",
    "Chunk",
    "ChunkWork",
    "Dataset",
    "DatasetSpace",
    "Document",
    "DocumentSource",
    "EmbedWork",
    "Embedding",
    "EmbeddingSpace",
    "ExtractWork",
    "IndexRun",
    "LlmProvider",
    "MediaFile",
    "Message",
    "MirrorReport",
    "NamedLease",
    "Project",
    "ProviderBreaker",
    "RecallCheck",
    "RowWords",
    "SpaceProbe",
    "Spend",
    "Topic",
    "TriggerRepair",
    "VectorTombstone",
    "metadata",
]
