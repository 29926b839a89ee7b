"""Every setting of Evervec, read once from the environment (EVERVEC_*) and frozen."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """Return the folder of the embedded servers' data: /var/lib for root, the XDG data folder for other users."""
    if os.geteuid() == 0:
        return Path("/var/lib/evervec")
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "evervec"


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _cron(value: str) -> str:
    """Return a cron expression, or "" for "off"; the scheduler checks the expression."""
    return "" if value.strip().lower() == "off" else value.strip()


class Settings(BaseSettings):
    """The settings of a process, frozen; durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="EVERVEC_", env_ignore_empty=True, frozen=True, extra="ignore")

    home: Path = Field(
        default_factory=default_home,
        description="Folder of the embedded servers' data, keys and logs; root: `/var/lib/evervec`, others: `$XDG_DATA_HOME/evervec` or `~/.local/share/evervec`.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL to use, as a `postgresql://` address. Unset: a PostgreSQL of our own is started.",
    )
    database_direct_url: SecretStr | None = Field(
        default=None,
        description="Address of the same PostgreSQL without a pooler between, for migrations and index builds. Unset: `EVERVEC_DATABASE_URL`.",
    )
    database_schema: str = Field(
        default="evervec",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Schema that holds everything of Evervec in the database.",
    )
    nats_url: SecretStr | None = Field(
        default=None,
        description="NATS to use, as a `nats://` address. Unset: `EVERVEC_QUEUE` decides.",
    )
    queue: Literal["auto", "nats", "postgres"] = Field(
        default="auto",
        description="What carries doorbells between processes: `nats` (a NATS of our own without `EVERVEC_NATS_URL`), `postgres` (LISTEN/NOTIFY; no NATS is used), or `auto`: `postgres` with `EVERVEC_DATABASE_URL` and without `EVERVEC_NATS_URL`, else `nats`.",
    )
    nats_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of our own NATS. Unset: a free one, kept."
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Key that seals providers' API keys and the passwords of sources. Unset: made and kept in `EVERVEC_HOME`; needed with a PostgreSQL that is not ours. Several, with commas between: the first seals, all open.",
    )
    local_model: Literal["auto", "wordllama", "minilm", "multilingual"] = Field(
        default="auto",
        description="Model of this machine that an empty database begins with: `wordllama`, `minilm` or `multilingual` (both need `evervec[onnx]`). `auto`: `wordllama` at once, and `minilm`, where it is installed, is built beside it while the machine is idle.",
    )
    provider_networks: str = Field(
        default="private",
        description="Addresses that providers may have: `private` (any, but link-local and metadata ones), `public` alone, or networks beside the public ones: `10.0.0.0/8,127.0.0.1/32`.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = Field(
        default="WARNING",
        description="Least level of what is logged to stderr: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.",
    )
    log_json: bool = Field(default=False, description="Log one JSON document a line.")

    stream: str = Field(
        default="EVERVEC",
        pattern=r"^[A-Z0-9_]{1,32}$",
        description="Name of the NATS stream; one for each installation that shares a server.",
    )
    worker_tasks: int = Field(default=4, ge=1, le=256, description="Tasks that a worker runs at a time.")
    embed_batch: int = Field(default=256, ge=1, le=4096, description="Rows that are claimed at a time to be embedded.")
    lease_seconds: float = Field(
        default=60,
        gt=0,
        description="Seconds until the work of a dead or frozen process is free again: rows, a dataset, a batch job; a living one renews.",
    )
    sweep_seconds: float = Field(
        default=3, gt=0, description="Seconds between two looks of a worker for rows that nobody has claimed."
    )
    attached_seconds: float = Field(
        default=0.05, gt=0, description="Seconds between two looks of a worker for changed rows of attached tables."
    )
    attached_compare_seconds: float = Field(
        default=300,
        gt=0,
        description="Seconds between two comparisons of the keys of a polled table with its documents: how late a deletion is noticed.",
    )
    attached_slot_mb: float = Field(
        default=1024,
        gt=0,
        description="Log in MB that a server may keep for the slot of an attached table; above it the slot is made anew, and all rows are compared.",
    )
    stop_seconds: float = Field(
        default=20, gt=0, description="Seconds that a stop waits for running tasks and servers."
    )
    pool_size: int = Field(default=8, ge=2, le=128, description="Most connections of a process to PostgreSQL.")
    connect_seconds: float = Field(default=10, gt=0, description="Seconds to wait until PostgreSQL or NATS answers.")

    index_cron: Annotated[str, AfterValidator(_cron)] = Field(
        default="0 3 * * 0",
        description="When every dataset with a source is compared in full, as cron has it, in UTC; `off` for never.",
    )
    file_mb: float = Field(default=20, gt=0, description="Largest file that is indexed, in MB.")

    batch_cron: Annotated[str, AfterValidator(_cron)] = Field(
        default="", description="When batch jobs are sent and collected, as cron has it, in UTC; `off` for never."
    )
    batch_hours: float = Field(
        default=50, gt=0, le=8760, description="Hours that a row waits for a batch job before it is embedded at once."
    )
    batch_grace_seconds: float = Field(
        default=600,
        ge=0,
        description="Seconds that a job may be missing in the provider's list before it is sent again.",
    )

    faiss_dir: Path | None = Field(default=None, description="Folder of the mirrors. Unset: `faiss` in `EVERVEC_HOME`.")
    mirror_memory_mb: int = Field(
        default=4096,
        ge=1,
        description="Memory that the mirrors of a process may take, in MB; above it the least used ones are dropped.",
    )
    mirror_recall: float = Field(
        default=0.98, gt=0, le=1, description="Recall@10 that an index is tuned to, above 0 and at most 1."
    )
    mirror_index: str | None = Field(
        default=None,
        description="Index of every mirror as FAISS spells it: `SQfp16` (exact), `HNSW32,SQfp16`, `IVF{K},RaBitQfs,Refine(SQfp16)`. Unset: chosen by size.",
    )
    mirror_poll_seconds: float = Field(
        default=0.5, gt=0, description="Seconds between two looks at the change feed when no doorbell rings."
    )
    mirror_check_seconds: float = Field(
        default=3600, gt=0, description="Seconds between two comparisons of a mirror with the database."
    )
    mirror_recall_seconds: float = Field(
        default=86_400, gt=0, description="Seconds between two measurements of a mirror's recall."
    )

    api_host: str = Field(default="127.0.0.1", description="Address that the HTTP API listens on.")
    api_key: SecretStr | None = Field(
        default=None,
        description="Key that a request has to bring as `X-API-KEY`. Unset: none is asked for, and the API listens on the loopback alone.",
    )
    api_port: int = Field(default=8321, ge=0, le=65535, description="Port of the HTTP API; 0 for a free one.")

    @cached_property
    def embedded_database(self) -> bool:
        """Return whether we start PostgreSQL ourselves."""
        return self.database_url is None

    @cached_property
    def mirrors(self) -> Path:
        """Return the folder of the mirrors on disk."""
        return self.faiss_dir if self.faiss_dir is not None else self.home / "faiss"

    @cached_property
    def queue_kind(self) -> Literal["nats", "postgres"]:
        """Return what carries doorbells and tasks between processes."""
        if self.queue != "auto":
            return self.queue
        return "postgres" if self.database_url is not None and self.nats_url is None else "nats"

    @cached_property
    def embedded_nats(self) -> bool:
        """Return whether we start NATS ourselves."""
        return self.queue_kind == "nats" and self.nats_url is None
