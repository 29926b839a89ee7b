"""Keep the text in PostgreSQL embedded and searchable. Importing this starts nothing, opens nothing, and is quick.

```python
from evervec import Document, SemanticCore

async with SemanticCore.open() as core:
    await core.ingest(Document.from_path("notes.md"))
    hits = await core.search("what did we decide?")
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evervec.library.blocking import SyncSemanticCore
    from evervec.library.core import SemanticCore
    from evervec.library.documents import LibraryDocument as Document
    from evervec.library.gemini_batches import LibraryBatchClient as GeminiBatchClient
    from evervec.store.batch.batch_jobs import BatchJobRecord as BatchJob

__all__ = ["BatchJob", "Document", "GeminiBatchClient", "SemanticCore", "SyncSemanticCore"]

_PLACES = {
    "BatchJob": ("evervec.store.batch.batch_jobs", "BatchJobRecord"),
    "Document": ("evervec.library.documents", "LibraryDocument"),
    "GeminiBatchClient": ("evervec.library.gemini_batches", "LibraryBatchClient"),
    "SemanticCore": ("evervec.library.core", "SemanticCore"),
    "SyncSemanticCore": ("evervec.library.blocking", "SyncSemanticCore"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module 'evervec' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
