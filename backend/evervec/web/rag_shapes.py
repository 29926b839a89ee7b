"""What the indexing API takes and answers, as types; where the numbers come from is `pipeline/index_status`."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, StrictInt, StrictStr

from evervec.domain.sources import SourceType

MOST_IDS = 1_000_000
MOST_TABLES = 1_000


def _within(changed: object) -> object:
    """Counted before a single id is looked at."""
    if isinstance(changed, dict):
        ids = sum(len(some) for some in changed.values() if isinstance(some, list))
        if ids > MOST_IDS or len(changed) > MOST_TABLES:
            raise ValueError(
                f"{ids} ids of {len(changed)} tables are too many, {MOST_IDS} of {MOST_TABLES} at most: send them in parts, "
                "or index without changed_ids, which compares everything"
            )
    return changed


Ids = Annotated[list[StrictInt | StrictStr], FailFast()]


class IndexRequest(BaseModel):
    """What to index: the changed records by table, or everything if that is left out."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    changed_ids: Annotated[dict[str, Ids] | None, BeforeValidator(_within)] = Field(
        default=None,
        description="Keys of the records that are new, changed or gone, by table (`files` with paths for a file source). "
        f"At most {MOST_IDS} of them.",
    )


class _Answer(BaseModel):
    # a field that is new in the answer and unknown here is a mistake; nulls have a default for the sake of the API's own
    # documentation: FastAPI leaves them out of its examples
    model_config = ConfigDict(extra="forbid")


class Documents(_Answer):
    """Documents by what was done about them."""

    new: int
    changed: int
    unchanged: int
    moved: int
    deleted: int
    skipped: int


class Chunks(_Answer):
    """Chunks by what was done about them. Skipped ones have the text that they had."""

    new: int
    updated: int
    skipped: int
    deleted: int


class Stages(_Answer):
    """Seconds by stage. Stages overlap, so together they may be more than the total."""

    list: float
    read: float
    chunk: float
    write: float
    embed: float
    total: float


class Full(_Answer):
    """What a run without memory would have sent."""

    texts: int
    tokens: int
    cost_usd: float | None = None


class Saved(_Answer):
    """What a run without memory would have sent, less what was sent; never below 0. No dollars without a price."""

    texts: int
    tokens: int
    cost_usd: float | None = None


class SavedTime(Saved):
    """The same with the seconds of `full_run` less the run's own; null while no run from nothing was measured."""

    seconds: float | None = None


class Example(_Answer):
    """Something that was left out, and why."""

    uri: str
    reason: str
    detail: str


class Run(_Answer):
    """An index run: asked for, at work, or finished."""

    run: UUID
    dataset_id: UUID
    mode: Literal["delta", "compare", "full"]
    trigger: str
    embeds: bool = Field(description="False when workers, or batch jobs, embed what the run writes.")
    lane: Literal["online", "batch"]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    error: str | None = None
    attempts: int
    changed: dict[str, int] | None = Field(default=None, description="How many ids of each table a delta was given.")
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    documents: Documents
    chunks: Chunks
    texts_sent: int
    embeddings_generated: int
    embeddings_reused: int
    requests: int
    tokens: int
    cost_usd: float | None = None
    full: Full | None = None
    saved: Saved | None = None
    seconds: Stages
    skipped: dict[str, int] = Field(description="What was left out, by reason.")
    examples: list[Example]


class Progress(_Answer):
    """How far a run is, by what it has written: documents done, of how many (known of a delta alone), and where."""

    documents: int
    of: int | None = None
    at: str | None = None


class Running(Run):
    """The run at work. Without a process at it (`alive` false) it was interrupted, and the next worker goes on with it."""

    alive: bool
    progress: Progress


class Source(_Answer):
    """Where a dataset's documents come from."""

    type: SourceType
    name: str
    where: str
    synced_at: datetime | None = None


class _OfDataset(_Answer):
    dataset_id: UUID
    project: str
    dataset: str


class Status(_OfDataset):
    """What a dataset holds and what happens to it. Embedded, pending and failed count chunks."""

    source: Source | None = None
    documents: int
    chunks: int
    embedded: int
    pending: int
    failed: int
    waiting_documents: int = Field(description="Documents whose chunks are still to be made.")
    running: Running | None = None
    queued: Run | None = None
    last: Run | None = None
    next_full_rebuild: datetime | None = Field(
        default=None, description="UTC; null when the schedule is off, or nothing fills it."
    )


class MeasuredRun(Run):
    """A run with the seconds that it saved."""

    saved: SavedTime | None = None


class TotalSaved(_Answer):
    """The sum of what single runs saved; null where nothing is known."""

    texts: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


class Totals(_Answer):
    """All finished runs that are kept (the newest 200), together."""

    runs: int
    documents: Documents
    chunks: Chunks
    texts_sent: int
    embeddings_generated: int
    embeddings_reused: int
    requests: int
    tokens: int
    cost_usd: float | None = None
    seconds: Stages
    saved: TotalSaved


class Metrics(_OfDataset):
    """What the runs of a dataset did, cost and saved."""

    full_run: MeasuredRun | None = Field(default=None, description="The newest run that did everything from nothing.")
    totals: Totals
    runs: list[MeasuredRun]


class Problem(_Answer):
    """What is wrong, and what to do."""

    code: str
    message: str


class Refusal(_Answer):
    """A request that was not done."""

    error: Problem


class Busy(Refusal):
    """Refused, because this run is at work or waits."""

    run: UUID


class Unauthorized(_Answer):
    """Without the server's key."""

    detail: str
