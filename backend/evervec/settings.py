"""Every knob of Evervec, read once from the environment (EVERVEC_*) and frozen; nothing else reads it."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """Where the embedded stack keeps its data: /var/lib for root, the XDG data folder for everybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/evervec")
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "evervec"


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _cron(value: str) -> str:
    """A time as cron has it, or "off", which becomes nothing; whether it is one, the scheduler says."""
    return "" if value.strip().lower() == "off" else value.strip()


class Settings(BaseSettings):
    """Frozen settings; seconds for every duration."""

    model_config = SettingsConfigDict(env_prefix="EVERVEC_", env_ignore_empty=True, frozen=True, extra="ignore")

    home: Path = Field(default_factory=default_home)
    database_url: SecretStr | None = None
    nats_url: SecretStr | None = None
    nats_port: int | None = Field(default=None, ge=1, le=65535)
    secret_key: SecretStr | None = None
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)] = "WARNING"
    log_json: bool = False

    stream: str = Field(default="EVERVEC", pattern=r"^[A-Z0-9_]{1,32}$")
    worker_tasks: int = Field(default=4, ge=1, le=256)
    embed_batch: int = Field(default=256, ge=1, le=4096)
    lease_seconds: float = Field(default=60, gt=0)
    sweep_seconds: float = Field(default=3, gt=0)
    stop_seconds: float = Field(default=20, gt=0)
    pool_size: int = Field(default=8, ge=2, le=128)
    connect_seconds: float = Field(default=10, gt=0)

    index_cron: Annotated[str, AfterValidator(_cron)] = "0 3 * * 0"
    file_mb: float = Field(default=20, gt=0)

    batch_cron: Annotated[str, AfterValidator(_cron)] = ""
    batch_hours: float = Field(default=50, gt=0, le=8760)
    batch_grace_seconds: float = Field(default=600, ge=0)

    faiss_dir: Path | None = None
    mirror_memory_mb: int = Field(default=4096, ge=1)
    mirror_recall: float = Field(default=0.98, gt=0, le=1)
    mirror_index: str | None = None
    mirror_poll_seconds: float = Field(default=0.5, gt=0)
    mirror_check_seconds: float = Field(default=3600, gt=0)
    mirror_recall_seconds: float = Field(default=86_400, gt=0)

    api_host: str = "127.0.0.1"
    api_key: SecretStr | None = None
    api_port: int = Field(default=8321, ge=0, le=65535)

    @cached_property
    def embedded_database(self) -> bool:
        """Whether we start PostgreSQL ourselves."""
        return self.database_url is None

    @cached_property
    def mirrors(self) -> Path:
        """Where the mirrors are kept on disk."""
        return self.faiss_dir if self.faiss_dir is not None else self.home / "faiss"

    @cached_property
    def embedded_nats(self) -> bool:
        """Whether we start NATS ourselves."""
        return self.nats_url is None
