"""Answers of the indexing API as its documentation shows them: made of the types that answer, so that they stay true."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from evervec.domain.sources import SourceType
from evervec.pipeline.status.indexing import (
    IndexMetrics,
    IndexStatus,
    MeasuredRun,
    RunningReport,
    RunProgress,
    RunTotals,
    SavingsWithTime,
    SourceStatus,
    TotalSavings,
)
from evervec.pipeline.status.run_report import ChunkCounts, DocumentCounts, FullRunCost, RunReport, Savings
from evervec.store.runs import RunSeconds
from evervec.web.refusals import BusyAnswer, Problem, RefusedAnswer, UnauthorizedAnswer

DATASET: Final = UUID("6f1c9d52-2b7e-4c54-9d0e-3a1f5f6f0b11")
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)

QUEUED: Final = RunReport(
    run=UUID("0d9a3a0e-4c34-4d0a-9a0b-6a9a4d5f8c21"),
    dataset_id=DATASET,
    mode="delta",
    trigger="http",
    embeds=True,
    lane="online",
    state="queued",
    attempts=0,
    changed={"orders": 2, "reviews": 1},
    created_at=NOON,
    documents=DocumentCounts(new=0, changed=0, unchanged=0, moved=0, deleted=0, skipped=0),
    chunks=ChunkCounts(new=0, updated=0, skipped=0, deleted=0),
    texts_sent=0,
    embeddings_generated=0,
    embeddings_reused=0,
    requests=0,
    tokens=0,
    seconds=RunSeconds(),
    skipped={},
    examples=[],
)
DONE: Final = replace(
    QUEUED,
    state="done",
    attempts=1,
    started_at=NOON + timedelta(seconds=0.1),
    finished_at=NOON + timedelta(seconds=0.2),
    documents=DocumentCounts(new=0, changed=2, unchanged=0, moved=0, deleted=1, skipped=0),
    chunks=ChunkCounts(new=0, updated=2, skipped=1, deleted=1),
    texts_sent=2,
    embeddings_generated=2,
    requests=1,
    tokens=96,
    cost_usd=0.0000019,
    full=FullRunCost(texts=10230, tokens=491040, cost_usd=0.0098208),
    saved=Savings(texts=10228, tokens=490944, cost_usd=0.0098189),
    seconds=RunSeconds(read=0.004, chunk=0.001, write=0.009, embed=0.021, total=0.047),
)
_RUNNING = replace(QUEUED, state="running", attempts=1, started_at=DONE.started_at)
STATUS: Final = IndexStatus(
    dataset_id=DATASET,
    project="marketplace",
    dataset="seller-7",
    source=SourceStatus(
        type=SourceType.SQL,
        name="shop",
        where="postgresql://db.example.org/shop",
        synced_at=NOON - timedelta(seconds=2),
    ),
    documents=10120,
    chunks=10230,
    embedded=10228,
    pending=2,
    failed=0,
    waiting_documents=0,
    running=RunningReport(**vars(_RUNNING), alive=True, progress=RunProgress(documents=0, of=3)),
    last=replace(DONE, run=UUID("7b2f4c1d-90c7-4b2e-8f0c-0b7d5a3c9e42")),
    next_full_rebuild=datetime(2026, 3, 8, 3, tzinfo=UTC),
)
_SAVED = SavingsWithTime(texts=10228, tokens=490944, cost_usd=0.0098189, seconds=61.208)
_MEASURED = MeasuredRun(**vars(DONE) | {"saved": _SAVED})
_FULL = replace(
    _MEASURED,
    run=UUID("a4e0b8f7-6d1f-4b7c-9c55-2f4f6b0c7d10"),
    mode="full",
    changed=None,
    documents=DocumentCounts(new=10120, changed=0, unchanged=0, moved=0, deleted=0, skipped=0),
    chunks=ChunkCounts(new=10230, updated=0, skipped=0, deleted=0),
    texts_sent=10230,
    embeddings_generated=10230,
    requests=40,
    tokens=491040,
    cost_usd=0.0098208,
    saved=SavingsWithTime(texts=0, tokens=0, cost_usd=0.0, seconds=0.0),
    seconds=RunSeconds(list=0.611, chunk=2.114, write=3.42, embed=58.3, total=61.255),
)
METRICS: Final = IndexMetrics(
    dataset_id=DATASET,
    project="marketplace",
    dataset="seller-7",
    full_run=_FULL,
    totals=RunTotals(
        runs=1,
        documents=DONE.documents,
        chunks=DONE.chunks,
        texts_sent=2,
        embeddings_generated=2,
        embeddings_reused=0,
        requests=1,
        tokens=96,
        cost_usd=0.0000019,
        seconds=DONE.seconds,
        saved=TotalSavings(**vars(_SAVED)),
    ),
    runs=[_MEASURED],
)


def _refused(code: str, message: str) -> RefusedAnswer:
    return RefusedAnswer(Problem(code, message))


_BUSY = Problem("IndexRunningError", f"Dataset {DATASET} is already being indexed by run …")
REFUSALS: Final[dict[int, tuple[str, RefusedAnswer | UnauthorizedAnswer]]] = {
    401: ("The key is missing or wrong.", UnauthorizedAnswer("Give the key of this server as X-API-KEY.")),
    404: (
        "There is no such dataset.",
        _refused("UnknownDatasetError", "There is no dataset 'nope'. Known datasets: marketplace/seller-7."),
    ),
    409: ("A run of this dataset is running, or waits.", BusyAnswer(_BUSY, QUEUED.run)),
    422: (
        "An unknown table, an id of a wrong type, an invalid body, a dataset without a source.",
        _refused("UnknownTableError", "There is no table 'stocks' in the source of this dataset."),
    ),
    503: (
        "PostgreSQL or the source's database does not answer.",
        _refused("SourceDownError", "The source shop at postgresql://db.example.org/shop does not answer."),
    ),
}
