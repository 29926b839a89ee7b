"""The store's light row types against the models: a field is a column of the same name and type, or derived from some."""

import subprocess
import sys
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_type_hints

import pytest
from sqlalchemy import inspect

from evervec.domain.extraction.knowledge import KnownAtom, KnownTopic
from evervec.store.batch.batch_jobs import JOB_COUNTS, JOB_SIZES, BatchJobRecord, JobRow
from evervec.store.breakers import Breaker
from evervec.store.datasets import DatasetRef
from evervec.store.documents import StoredDocument
from evervec.store.embeddings.rows import ClaimedRow
from evervec.store.mirrors import LiveMirror, MeasuredRecall, MirrorHolder, MirrorProgress
from evervec.store.providers import Provider, Space
from evervec.store.runs import NUMBERS, RunCounts, RunRecord, RunSeconds
from evervec.store.schema import models
from evervec.store.schema.columns import Model
from evervec.store.sources import SourceRecord
from evervec.store.spaces.spaces import OtherSpace
from evervec.store.spaces.unchunked import UnchunkedDocument

ROW_TYPES: list[tuple[type, type[Model], set[str]]] = [
    (DatasetRef, models.Dataset, {"project"}),
    (Space, models.EmbeddingSpace, {"active"}),
    (Provider, models.LlmProvider, {"space", "breaker", "refused_options", "encoder", "tokens_per_minute", "limited"}),
    (Breaker, models.ProviderBreaker, {"seconds", "code", "error"}),  # None: closed
    (OtherSpace, models.DatasetSpace, {"taken_in", "indexed", "marked"}),
    (SourceRecord, models.DocumentSource, set()),
    (RunRecord, models.IndexRun, {"counts", "seconds"}),
    (RunCounts, models.IndexRun, set()),
    (BatchJobRecord, models.BatchJob, {"stats", "late"}),
    (JobRow, models.BatchItem, {"dataset_id"}),
    (StoredDocument, models.Document, set()),
    (UnchunkedDocument, models.Document, {"seen", "document"}),
    (KnownTopic, models.Topic, {"topic_id"}),
    (KnownAtom, models.Atom, {"atom_id", "topic", "message_ids"}),
    (
        ClaimedRow,
        models.Embedding,
        {"kind", "text", "attempts", "last_code", "content_hash"},
    ),  # never NULL: it has a text
    (MeasuredRecall, models.RecallCheck, set()),
    (MirrorHolder, models.MirrorReport, {"id"}),
    (MirrorProgress, models.MirrorReport, set()),
    (LiveMirror, models.MirrorReport, {"behind_ms", "missing", "extra", "stale"}),
]
"""A row type, the model of its table, and what it has besides columns of that table."""


@pytest.mark.parametrize(("row_type", "model", "derived"), ROW_TYPES, ids=[one[0].__name__ for one in ROW_TYPES])
def test_a_row_type_has_the_columns_of_its_model(row_type: type, model: type[Model], derived: set[str]) -> None:
    told, declared = get_type_hints(row_type), _declared(model)
    assert derived <= set(told)
    for name in set(told) - derived:
        assert _plain(told[name]) == _plain(declared[name]), f"{row_type.__name__}.{name}"


def test_what_runs_and_jobs_count_are_columns() -> None:
    assert set(NUMBERS) == {*get_type_hints(RunCounts), *(f"seconds_{name}" for name in get_type_hints(RunSeconds))}
    assert {_declared(models.IndexRun)[name] for name in NUMBERS} == {int, float}
    assert {_declared(models.BatchJob)[name] for name in (*JOB_COUNTS, *JOB_SIZES)} == {int}


def _declared(model: type[Model]) -> Mapping[str, Any]:
    mapper = inspect(model)
    properties = {column.name: mapper.get_property_by_column(column).key for column in mapper.local_table.columns}
    return {name: model.model_fields[key].annotation for name, key in properties.items()}


def _plain(annotation: Any) -> Any:
    """Return the types of an annotation, an enumeration of texts as the text that its column holds."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return {str if isinstance(kind, type) and issubclass(kind, str) else kind for kind in kinds}


def test_no_process_imports_the_models_to_read_a_row() -> None:
    """They take longer to import than everything else that a command needs (docs/decisions/0015)."""
    modules = sorted({row_type.__module__ for row_type, _, _ in ROW_TYPES} | {"evervec.runtime", "evervec.worker.main"})
    heavy = "{'sqlalchemy', 'sqlmodel', 'alembic'} & set(sys.modules)"
    code = f"import sys, {', '.join(modules)}; print(sorted({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
