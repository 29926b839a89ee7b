"""One index run as the command line, the library and the HTTP API show it: declared here, once for all of them."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from evervec.store.runs import RunCounts, RunRecord, RunSeconds


def one_of(*values: str) -> Any:
    """Return the annotation that names the values of a text in the API's documentation."""
    return Field(json_schema_extra={"enum": [*values]})


# Nulls have a default because FastAPI leaves them out of the examples in its documentation.
@dataclass(frozen=True, kw_only=True)
class DocumentCounts:
    """Documents by what was done about them."""

    new: int
    changed: int
    unchanged: int
    moved: int
    deleted: int
    skipped: int

    @classmethod
    def of(cls, counts: RunCounts) -> "DocumentCounts":
        """Return the document counts of a run."""
        return cls(
            new=counts.documents_new,
            changed=counts.documents_changed,
            unchanged=counts.documents_unchanged,
            moved=counts.documents_moved,
            deleted=counts.documents_deleted,
            skipped=counts.documents_skipped,
        )

    @property
    def kept(self) -> int:
        """Return how many documents the source has."""
        return self.new + self.changed + self.moved + self.unchanged

    @property
    def written(self) -> int:
        """Return how many documents were written or deleted."""
        return self.new + self.changed + self.moved + self.deleted


@dataclass(frozen=True, kw_only=True)
class ChunkCounts:
    """Chunks by what was done about them. Skipped ones have the text that they had."""

    new: int
    updated: int
    skipped: int
    deleted: int

    @classmethod
    def of(cls, counts: RunCounts) -> "ChunkCounts":
        """Return the chunk counts of a run."""
        return cls(
            new=counts.chunks_new,
            updated=counts.chunks_updated,
            skipped=counts.chunks_skipped,
            deleted=counts.chunks_deleted,
        )

    @property
    def kept(self) -> int:
        """Return how many chunks the documents have."""
        return self.new + self.updated + self.skipped

    @property
    def written(self) -> int:
        """Return how many chunks were written or deleted."""
        return self.new + self.updated + self.deleted


@dataclass(frozen=True, kw_only=True)
class FullRunCost:
    """What a first run would have sent."""

    texts: int
    tokens: int
    cost_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What a first run would have sent, less what was sent; never below 0. No dollars without a price."""

    texts: int
    tokens: int
    cost_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class SkippedExample:
    """Something that was left out, and why."""

    uri: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """An index run: requested, running, or finished."""

    run: UUID
    dataset_id: UUID
    mode: Annotated[str, one_of("delta", "compare", "full")]
    trigger: str
    embeds: Annotated[bool, Field(description="False when workers, or batch jobs, embed what the run writes.")]
    lane: Annotated[str, one_of("online", "batch")]
    state: Annotated[str, one_of("queued", "running", "done", "failed", "cancelled")]
    error: str | None = None
    attempts: int
    changed: Annotated[dict[str, int] | None, Field(description="How many ids of each table a delta was given.")] = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    documents: DocumentCounts
    chunks: ChunkCounts
    texts_sent: int
    embeddings_generated: int
    embeddings_reused: int
    requests: int
    tokens: int
    cost_usd: float | None = None
    full: FullRunCost | None = None
    saved: Savings | None = None
    seconds: RunSeconds
    skipped: Annotated[dict[str, int], Field(description="What was left out, by reason.")]
    examples: list[SkippedExample]


def run_report(run: RunRecord) -> RunReport:
    """Return a run for people and programs: seconds by stage, dollars where the provider's price is known, else None.

    `full` is what a first run would have sent, None until a run is done. `saved` is the difference to what was
    sent; it is None as well for a run that left the embedding to workers. `changed` counts the ids of a delta, by table.
    """
    counts = run.counts
    return RunReport(
        run=run.id,
        dataset_id=run.dataset_id,
        mode=run.mode,
        trigger=run.trigger,
        embeds=run.embeds,
        lane="batch" if run.deferred else "online",
        state=run.state,
        error=run.error,
        attempts=run.attempts,
        changed=None if run.changed is None else {table: len(ids) for table, ids in run.changed.items()},
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        documents=DocumentCounts.of(counts),
        chunks=ChunkCounts.of(counts),
        texts_sent=counts.texts_sent,
        embeddings_generated=counts.embeddings_generated,
        embeddings_reused=counts.embeddings_reused,
        requests=counts.requests,
        tokens=counts.tokens,
        cost_usd=run.cost_usd,
        full=_full(run),
        saved=_savings(run),
        seconds=rounded(run.seconds),
        skipped=run.skipped,
        examples=[SkippedExample(**one) for one in run.examples],
    )


def _full(run: RunRecord) -> FullRunCost | None:
    if run.state != "done":
        return None
    return FullRunCost(texts=run.counts.full_texts, tokens=run.counts.full_tokens, cost_usd=run.full_cost_usd)


def _savings(run: RunRecord) -> Savings | None:
    full = _full(run)
    if full is None or not run.embeds:
        return None
    cost = None if run.cost_usd is None or full.cost_usd is None else max(0.0, full.cost_usd - run.cost_usd)
    return Savings(
        # a text that was sent twice, because the provider failed the first time, does not make the savings negative
        texts=max(0, full.texts - run.counts.texts_sent),
        tokens=max(0, full.tokens - run.counts.tokens),
        cost_usd=cost,
    )


def rounded(seconds: RunSeconds) -> RunSeconds:
    """Return seconds by stage to the millisecond."""
    return replace(seconds, **{stage: round(value, 3) for stage, value in vars(seconds).items()})
