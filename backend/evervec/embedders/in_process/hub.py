"""Models of the Hugging Face hub: brought to this machine when a provider is added, afterwards read from its cache alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import file_digest, sha256
from pathlib import Path

from evervec.embedders.in_process.embedder import changed_model
from evervec.errors import AuthError, ConfigError, ProviderError, TransientError


@dataclass(frozen=True)
class HubFiles:
    """The files of a repository that a model is made of, as patterns of their paths."""

    repo: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()

    def digest(self, folder: Path, *options: object) -> str:
        """Return twelve hexadecimal digits that stand for these files in a folder, and for the options."""
        total = sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            if self._has(name):
                with path.open("rb") as file:
                    total.update(f"{name}\n{file_digest(file, 'sha256').hexdigest()}\n".encode())
        total.update(repr(options).encode())
        return total.hexdigest()[:12]

    def _has(self, name: str) -> bool:
        wanted = any(fnmatch(name, pattern) for pattern in self.wanted)
        return wanted and not any(fnmatch(name, pattern) for pattern in self.unwanted)


def fetch(provider: str, files: HubFiles, hub_url: str | None = None) -> None:
    """Bring the newest version of a model into the cache of this machine; what is there is not downloaded again.

    Raise `TransientError` when the hub can not be reached and the cache has no version, `AuthError` for a model that needs
    a token, `ConfigError` for one that there is not.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(provider, files.repo):
        snapshot_download(
            files.repo, allow_patterns=list(files.wanted), ignore_patterns=list(files.unwanted), endpoint=hub_url
        )


def choose(provider: str, files: HubFiles, model: str, digest: Callable[[Path], str]) -> tuple[Path, str]:
    """Return the folder of the version that a space was made with, and the model's name with its digest.

    A newer version that another program has brought here is passed over. Raise `ConfigError` where there is none.
    """
    name, _, wanted = model.partition("@")
    found = None
    for folder in _kept(provider, files):
        found = digest(folder)
        if wanted in ("", found):
            return folder, f"{name}@{found}"
    if found is not None:
        raise changed_model(provider, "the cache of the hub", found, wanted)
    raise ConfigError(
        provider,
        f"the model {name} is not on this machine. Run `evervec providers add` for it here, with a network, or let HF_HOME "
        "name a folder that has it.",
    )


def _kept(provider: str, files: HubFiles) -> list[Path]:
    """Return the versions of a model in the cache of this machine, the one that was fetched last first."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with _invalid_name(provider):
            newest = snapshot_download(
                files.repo,
                allow_patterns=list(files.wanted),
                ignore_patterns=list(files.unwanted),
                local_files_only=True,
            )
    except LocalEntryNotFoundError:
        return []
    first = Path(newest)
    return [first, *sorted(other for other in first.parent.iterdir() if other != first)]


@contextmanager
def _hub_errors(provider: str, repo: str) -> Iterator[None]:
    """Raise the `ProviderError` for what the hub's client raises inside."""
    from huggingface_hub.utils import httpx

    try:
        with _invalid_name(provider):
            yield
    except (OSError, httpx.TransportError) as problem:
        raise _error_of(provider, repo, problem) from None


def _error_of(provider: str, repo: str, problem: Exception) -> ProviderError:
    """Return the error for what the hub's client raised; what it found nothing in the cache for is the cause of its error."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    absent = isinstance(problem, LocalEntryNotFoundError)
    match problem.__cause__ if absent and isinstance(problem.__cause__, Exception) else problem:
        case GatedRepoError():
            return AuthError(
                provider, f"{repo} is for those alone who accept its terms on the hub: do so, set HF_TOKEN."
            )
        case RepositoryNotFoundError():
            return ConfigError(
                provider,
                f"the hub has no model {repo}, or shows it to nobody without a token: check the name, or set HF_TOKEN.",
            )
        case HfHubHTTPError(response=answer) if answer.status_code in (401, 403):
            return AuthError(
                provider, f"HTTP {answer.status_code} for {repo} of the hub: set HF_TOKEN to one that may read it."
            )
        case HfHubHTTPError(response=answer):
            from evervec.vendors.http import error_of_status  # loads httpx, which a status does not need

            retry_after = answer.headers.get("retry-after")
            return error_of_status(provider, answer.status_code, f"the hub does not give {repo}.", retry_after)
        case OfflineModeIsEnabled():
            return ConfigError(provider, f"HF_HUB_OFFLINE is set, and {repo} is not on this machine: unset it.")
        case OSError() as failed if not absent and not isinstance(failed, ConnectionError | TimeoutError):
            return ConfigError(provider, f"{repo} can not be kept on this machine: {failed}.")
        case cause:
            return TransientError(
                provider,
                f"the hub can not be reached, and {repo} is not on this machine ({cause}). Run it again with a network, or "
                "give the model as --folder PATH.",
            )


@contextmanager
def _invalid_name(provider: str) -> Iterator[None]:
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as problem:
        raise ConfigError(provider, f"that is no name of a model of the hub: {problem}") from None
