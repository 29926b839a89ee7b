"""The TaskIQ tasks, to be sent from a program: `await embed_messages_batch_task.kiq(message_ids=[1], provider_id=None)`."""

from evervec.worker.tasks import (
    attach,
    embed_atoms_batch_task,
    embed_chunks_batch_task,
    embed_messages_batch_task,
    embed_topics_batch_task,
    extract_knowledge_from_messages_task,
    index_all_datasets_task,
    index_dataset_task,
    process_batches_task,
    save_telegram_message_task,
    score_message_task,
    score_messages_batch_task,
    sweep_task,
)

__all__ = [
    "attach",
    "embed_atoms_batch_task",
    "embed_chunks_batch_task",
    "embed_messages_batch_task",
    "embed_topics_batch_task",
    "extract_knowledge_from_messages_task",
    "index_all_datasets_task",
    "index_dataset_task",
    "process_batches_task",
    "save_telegram_message_task",
    "score_message_task",
    "score_messages_batch_task",
    "sweep_task",
]
