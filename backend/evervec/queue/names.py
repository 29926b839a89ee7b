"""The names that travel on the wire: tasks, lanes, streams, subjects and headers; no behaviour beyond spelling them."""

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


class Lane(StrEnum):
    """Which queue a task waits in: what people wait for, what may wait, and what already killed workers."""

    INTERACTIVE = "interactive"
    BACKFILL = "backfill"
    QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Layout:
    """Where things are on the server, all derived from the name of the task stream."""

    stream: str

    @property
    def root(self) -> str:
        """The first token of every subject."""
        return self.stream.lower()

    @property
    def tasks(self) -> str:
        """Every task's subject, as a wildcard."""
        return f"{self.root}.task.>"

    def lane(self, lane: Lane) -> str:
        """The subject that a lane's consumer listens to."""
        return f"{self.root}.task.{lane}"

    @property
    def changed(self) -> str:
        """The subject on which mirrors hear that vectors of a dataset were written."""
        return f"{self.root}.changed"

    @property
    def dead_stream(self) -> str:
        """The stream of tasks that nobody could run."""
        return f"{self.stream}_DLQ"

    @property
    def dead(self) -> str:
        """Every dead letter's subject, as a wildcard."""
        return f"{self.root}.dlq.>"

    def dead_letter(self, task_name: str) -> str:
        """The subject of a dead letter; characters that mean something in a subject are replaced."""
        token = "".join(c if c.isalnum() or c in "_-" else "_" for c in task_name[:100]) or "unnamed"
        return f"{self.root}.dlq.{token}"

    @property
    def advisory_stream(self) -> str:
        """The stream of the server's remarks about tasks that were delivered too often."""
        return f"{self.stream}_ADV"

    @property
    def advisories(self) -> str:
        """The server's subject for those remarks."""
        return f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{self.stream}.*"
