"""What a request for indexing and its answers look like, for the API's own documentation; nothing is answered with these."""

from typing import Any, Final

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "delta": {"summary": "Two orders and a review", "value": {"changed_ids": {"orders": [17, 23], "reviews": [4]}}},
    "files": {"summary": "A file that was edited", "value": {"changed_ids": {"files": ["guide/retrying.md"]}}},
    "everything": {"summary": "Compare everything", "value": {}},
}

_DATASET: Final = {"dataset_id": "6f1c9d52-2b7e-4c54-9d0e-3a1f5f6f0b11"}
_NAMED: Final = {**_DATASET, "project": "marketplace", "dataset": "seller-7"}
_NOTHING: Final[dict[str, Any]] = {
    "documents": {"new": 0, "changed": 0, "unchanged": 0, "moved": 0, "deleted": 0, "skipped": 0},
    "chunks": {"new": 0, "updated": 0, "skipped": 0, "deleted": 0},
    "texts_sent": 0,
    "embeddings_generated": 0,
    "embeddings_reused": 0,
    "requests": 0,
    "tokens": 0,
    "cost_usd": None,
    "seconds": {"list": 0.0, "read": 0.0, "chunk": 0.0, "write": 0.0, "embed": 0.0, "total": 0.0},
}
_DELTA: Final[dict[str, Any]] = {
    "documents": {"new": 0, "changed": 2, "unchanged": 0, "moved": 0, "deleted": 1, "skipped": 0},
    "chunks": {"new": 0, "updated": 2, "skipped": 1, "deleted": 1},
    "texts_sent": 2,
    "embeddings_generated": 2,
    "embeddings_reused": 0,
    "requests": 1,
    "tokens": 96,
    "cost_usd": 0.0000019,
    "seconds": {"list": 0.0, "read": 0.004, "chunk": 0.001, "write": 0.009, "embed": 0.021, "total": 0.047},
}

QUEUED: Final[dict[str, Any]] = {
    "run": "0d9a3a0e-4c34-4d0a-9a0b-6a9a4d5f8c21",
    **_DATASET,
    "mode": "delta",
    "trigger": "http",
    "embeds": True,
    "lane": "online",
    "state": "queued",
    "error": None,
    "attempts": 0,
    "changed": {"orders": 2, "reviews": 1},
    "created_at": "2026-03-01T12:00:00Z",
    "started_at": None,
    "finished_at": None,
    **_NOTHING,
    "full": None,
    "saved": None,
    "skipped": {},
    "examples": [],
}
DONE: Final[dict[str, Any]] = QUEUED | {
    "state": "done",
    "attempts": 1,
    "started_at": "2026-03-01T12:00:00.1Z",
    "finished_at": "2026-03-01T12:00:00.2Z",
    **_DELTA,
    "full": {"texts": 10230, "tokens": 491040, "cost_usd": 0.0098208},
    "saved": {"texts": 10228, "tokens": 490944, "cost_usd": 0.0098189},
}
STATUS: Final[dict[str, Any]] = {
    **_NAMED,
    "source": {
        "type": "sql",
        "name": "shop",
        "where": "postgresql://db.example.org/shop",
        "synced_at": "2026-03-01T11:59:58Z",
    },
    "documents": 10120,
    "chunks": 10230,
    "embedded": 10228,
    "pending": 2,
    "failed": 0,
    "waiting_documents": 0,
    "running": QUEUED
    | {
        "state": "running",
        "attempts": 1,
        "started_at": "2026-03-01T12:00:00.1Z",
        "alive": True,
        "progress": {"documents": 0, "of": 3, "at": None},
    },
    "queued": None,
    "last": DONE | {"run": "7b2f4c1d-90c7-4b2e-8f0c-0b7d5a3c9e42"},
    "next_full_rebuild": "2026-03-08T03:00:00Z",
}
_MEASURED: Final = DONE | {"saved": DONE["saved"] | {"seconds": 61.208}}
_FULL: Final[dict[str, Any]] = DONE | {
    "run": "a4e0b8f7-6d1f-4b7c-9c55-2f4f6b0c7d10",
    "mode": "full",
    "changed": None,
    "documents": {"new": 10120, "changed": 0, "unchanged": 0, "moved": 0, "deleted": 0, "skipped": 0},
    "chunks": {"new": 10230, "updated": 0, "skipped": 0, "deleted": 0},
    "texts_sent": 10230,
    "embeddings_generated": 10230,
    "requests": 40,
    "tokens": 491040,
    "cost_usd": 0.0098208,
    "saved": {"texts": 0, "tokens": 0, "cost_usd": 0.0, "seconds": 0.0},
    "seconds": {"list": 0.611, "read": 0.0, "chunk": 2.114, "write": 3.42, "embed": 58.3, "total": 61.255},
}
METRICS: Final[dict[str, Any]] = {
    **_NAMED,
    "full_run": _FULL,
    "totals": {
        "runs": 1,
        **_DELTA,
        "saved": {"texts": 10228, "tokens": 490944, "cost_usd": 0.0098189, "seconds": 61.208},
    },
    "runs": [_MEASURED],
}


def _refusal(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


REFUSALS: Final[dict[int, tuple[str, dict[str, Any]]]] = {
    401: ("The key is missing or wrong.", {"detail": "Give the key of this server as X-API-KEY."}),
    404: (
        "There is no such dataset.",
        _refusal("UnknownDatasetError", "There is no dataset 'nope'. Known datasets: marketplace/seller-7."),
    ),
    409: (
        "A run of this dataset is at work, or waits.",
        _refusal("IndexRunningError", f"Dataset {_DATASET['dataset_id']} is already being indexed by run …")
        | {"run": QUEUED["run"]},
    ),
    422: (
        "An unknown table, an id of a wrong type, a body that is none, a dataset without a source.",
        _refusal("UnknownTableError", "There is no table 'stocks' in the source of this dataset."),
    ),
    503: (
        "PostgreSQL or the source's database does not answer.",
        _refusal("SourceDownError", "The source shop at postgresql://db.example.org/shop does not answer."),
    ),
}
