"""The headers of a message: a fixed list of text headers, and the id that the server deduplicates by."""

from collections.abc import Mapping
from typing import Any, Final

MSG_ID: Final = "Nats-Msg-Id"
TASK: Final = "X-Task"
TASK_ID: Final = "X-Task-Id"
LANE: Final = "X-Lane"
ERROR: Final = "X-Error"
SUBJECT: Final = "X-Subject"
SEQ: Final = "X-Seq"
DELIVERIES: Final = "X-Deliveries"

_TRACE = ("traceparent", "tracestate")
_ATTEMPTS = ("_retries", "X-Taskiq-requeue")


def text(value: object, limit: int = 500) -> str:
    """Return `value` as one line of ASCII: a line break ends a header, and parsers differ beyond ASCII."""
    return " ".join(str(value).split()).encode("ascii", "backslashreplace").decode()[:limit]


def message_id(task_id: str, labels: Mapping[str, Any]) -> str:
    """Return the deduplication id of one sending.

    It comes from the label `msg_id`, else from the task's id, so that sending again after an unknown outcome stores
    the task once. A retry or a requeue is another sending, although it copies labels and task id: it is marked, or
    the server would drop it as a duplicate and the task would be lost.
    """
    base = text(labels.get("msg_id") or task_id)
    marks = [f"{name.strip('_')}={text(labels[name])}" for name in _ATTEMPTS if str(labels.get(name, "0")) != "0"]
    return ":".join([base, *marks])


def of_task(task_id: str, task_name: str, labels: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a task. Every other label stays in the body, where it keeps its type."""
    found = {name: text(labels[name]) for name in _TRACE if name in labels}
    return found | {MSG_ID: message_id(task_id, labels), TASK: text(task_name), TASK_ID: text(task_id)}


def carried(found: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers that a message keeps when it is moved: all but the ids and conditions of its old stream."""
    return {name: text(value) for name, value in (found or {}).items() if not name.startswith("Nats-")}
