"""The names that other processes know: tasks, lanes, streams and subjects."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SAVE_TELEGRAM_MESSAGE: Final = "save_telegram_message_task"
SCORE_MESSAGE: Final = "score_message_task"
SCORE_MESSAGES: Final = "score_messages_batch_task"
EXTRACT_KNOWLEDGE: Final = "extract_knowledge_from_messages_task"
EMBED_MESSAGES: Final = "embed_messages_batch_task"
EMBED_ATOMS: Final = "embed_atoms_batch_task"
EMBED_TOPICS: Final = "embed_topics_batch_task"
EMBED_CHUNKS: Final = "embed_chunks_batch_task"
INDEX_DATASET: Final = "index_dataset_task"
INDEX_WAITING: Final = "index_waiting_task"
INDEX_ALL: Final = "index_all_datasets_task"
PROCESS_BATCHES: Final = "process_batches_task"
SWEEP: Final = "sweep_task"

HINTS: Final = frozenset(
    {
        SCORE_MESSAGE,
        SCORE_MESSAGES,
        EXTRACT_KNOWLEDGE,
        EMBED_MESSAGES,
        EMBED_ATOMS,
        EMBED_TOPICS,
        EMBED_CHUNKS,
        INDEX_WAITING,
        SWEEP,
    }
)
"""Tasks that only say what the database says too: whoever looks there finds the work without them."""


class Lane(StrEnum):
    """The priority of a task's queue: people wait for it, it may wait, or it already ended workers (quarantine)."""

    INTERACTIVE = "interactive"
    BACKFILL = "backfill"
    QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Layout:
    """The names of streams and subjects on the server, all derived from the name of the task stream."""

    stream: str

    @property
    def root(self) -> str:
        """Return the first token of every subject."""
        return self.stream.lower()

    @property
    def tasks(self) -> str:
        """Return the subject of all tasks, with a wildcard."""
        return f"{self.root}.task.>"

    def lane(self, lane: Lane) -> str:
        """Return the subject of a lane's tasks."""
        return f"{self.root}.task.{lane}"

    @property
    def changed(self) -> str:
        """Return the subject on which mirrors are told that vectors of a dataset were written."""
        return f"{self.root}.changed"

    @property
    def dead_stream(self) -> str:
        """Return the name of the stream of dead letters."""
        return f"{self.stream}_DLQ"

    @property
    def dead(self) -> str:
        """Return the subject of all dead letters, with a wildcard."""
        return f"{self.root}.dlq.>"

    def dead_letter(self, task_name: str) -> str:
        """Return the subject of a dead letter; characters with a meaning in subjects are replaced."""
        token = "".join(c if c.isalnum() or c in "_-" else "_" for c in task_name[:100]) or "unnamed"
        return f"{self.root}.dlq.{token}"

    @property
    def advisory_stream(self) -> str:
        """Return the name of the stream of the server's advisories about tasks that were delivered too often."""
        return f"{self.stream}_ADV"

    @property
    def advisories(self) -> str:
        """Return the server's subject of those advisories."""
        return f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{self.stream}.*"
