"""One error tree. A class's docstring is its message template; every message names the thing and the next step."""

from datetime import datetime
from typing import ClassVar


class EvervecError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1

    def __init__(self, **values: object) -> None:
        self.values = values
        template = (type(self).__doc__ or "").strip().replace("\n    ", " ")
        super().__init__(template.format(**values))


class Refused(EvervecError):
    """{reason}"""

    exit_code = 2


class UnknownDatasetError(Refused):
    """There is no dataset {dataset!r}. Known datasets: {known}. Create one with `evervec ingest`."""


class UnknownProjectError(Refused):
    """There is no project {project!r}. Known projects: {known}. Create one with `evervec ingest`."""


class UnknownProviderError(Refused):
    """There is no provider {provider!r}. Known providers: {known}. Add one with `evervec providers add`."""


class UnknownRowError(Refused):
    """There is no {kind} {row_id}. `evervec search` prints the ids that exist."""


class NameRefusedError(Refused):
    """{what} {name!r} is not a usable name: give 1 to 100 printable characters with a letter or digit in them."""


class ExportError(Refused):
    """{path}: {reason} Nothing was imported."""


class SpaceMismatchError(Refused):
    """Provider {provider!r} embeds into {wanted}, but this database is searched in {active}. Vectors of two
    spaces are never mixed. Switch with `evervec providers use {provider} --reembed`."""


# --- the stack ------------------------------------------------------------------------------------------------


class StackError(EvervecError):
    """{reason}"""


class HomeNotWritableError(StackError):
    """EVERVEC_HOME={home} can not be written ({reason}). Point EVERVEC_HOME at a folder that this user owns."""


class PortTakenError(StackError):
    """Port {port} is taken, so {server} can not listen there. Free it, or set {variable} to another one."""


class ServerStartError(StackError):
    """{server} did not come up within {seconds} s. Its last words: {log} The whole log: {path}"""


class DatabaseDownError(EvervecError):
    """PostgreSQL at {where} does not answer ({reason}). Start it, or unset EVERVEC_DATABASE_URL for the
    embedded one."""


class QueueDownError(EvervecError):
    """NATS at {where} does not answer ({reason}). Start it, or unset EVERVEC_NATS_URL for the embedded one.
    Committed rows are safe: a worker's sweeper finds them."""


class ServerTooOldError(EvervecError):
    """{server} {found} is too old, {least} is the least: {why}."""


class StreamMismatchError(EvervecError):
    """The NATS stream {stream} exists with {field}={found}, Evervec needs {wanted}, and NATS can not change it in
    place. Remove it with `nats stream rm {stream}` (rows are safe in PostgreSQL) or set EVERVEC_STREAM."""


class SchemaMismatchError(EvervecError):
    """The database has schema {found}, this Evervec needs {wanted}. Run `evervec migrate`."""


# --- what a provider may answer: one class per rung of the failure ladder ----------------------------------------


class ProviderError(EvervecError):
    """{provider}: {detail}"""

    code: ClassVar[str] = "transient"

    def __init__(self, provider: str, detail: str) -> None:
        super().__init__(provider=provider, detail=detail[:500])
        self.provider = provider
        self.detail = detail[:500]


class TransientError(ProviderError):
    """{provider} is out for the moment: {detail}"""


class RateLimitedError(ProviderError):
    """{provider} asks to slow down: {detail}"""

    code = "rate_limited"

    def __init__(self, provider: str, detail: str, delay: float) -> None:
        super().__init__(provider, detail)
        self.delay = delay


class QuotaExhaustedError(ProviderError):
    """{provider}'s quota is used up: {detail}"""

    code = "quota_exhausted"

    def __init__(self, provider: str, detail: str, until: datetime | None = None) -> None:
        super().__init__(provider, detail)
        self.until = until


class AuthError(ProviderError):
    """{provider} does not accept the key: {detail}"""

    code = "auth"


class ConfigError(ProviderError):
    """{provider} is not set up right: {detail}"""

    code = "config"


class BadInputError(ProviderError):
    """{provider} refuses the text: {detail}"""

    code = "bad_input"


class TooLargeError(ProviderError):
    """{provider} finds the request too large: {detail}"""

    code = "too_large"


class BadResponseError(ProviderError):
    """{provider} answered something that can not be right: {detail}"""

    code = "bad_response"
