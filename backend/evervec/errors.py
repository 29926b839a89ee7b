"""All errors, in one tree. A class's docstring is its message: it names the thing, the value and the next step."""

from datetime import datetime
from typing import ClassVar


class EvervecError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1

    def __init__(self, **values: object) -> None:
        self.values = values
        template = " ".join((type(self).__doc__ or "").split())
        super().__init__(template.format(**values))


class Refused(EvervecError):
    """{reason}"""

    exit_code = 2


class MissingExtraError(EvervecError):
    """{what} needs the package {package}, which is not installed. Install it with `pip install 'evervec[{extra}]'`."""


class UnknownDatasetError(Refused):
    """There is no dataset {dataset!r}. Known datasets: {known}. Create one with `evervec ingest`."""


class UnknownProjectError(Refused):
    """There is no project {project!r}. Known projects: {known}. Create one with `evervec ingest`."""


class UnknownProviderError(Refused):
    """There is no provider {provider!r}. Known providers: {known}. Add one with `evervec providers add`."""


class UnknownRowError(Refused):
    """There is no {kind} {row_id}. `evervec search` prints the ids that exist."""


class UnknownDocumentError(Refused):
    """Dataset {dataset} has no document {uri!r}. `core.list()` names those that it has."""


class UnknownDeadLetterError(Refused):
    """There is no dead letter {seq}. `evervec queue dead list` shows the ones that exist."""


class IndexRunningError(Refused):
    """Dataset {dataset} is already being indexed by run {run_id}.

    Wait until it ends, or send the changed ids to `index_dataset_task`, which waits for its turn. `evervec runs {dataset}`
    shows the run's progress.
    """

    exit_code = 1


class NoSourceError(Refused):
    """Dataset {dataset} has no source to be indexed from.

    Add one with `evervec ingest files` or `evervec ingest sql`.
    """


class EmptySourceError(Refused):
    """Nothing is found at {where}, where {count} documents of dataset {dataset} came from. Nothing was deleted.

    If a disk is not mounted, mount it. If the documents are really gone, run `evervec index {dataset} --full
    --allow-empty`, which deletes them here too.
    """


class InvalidNameError(Refused):
    """{what} {name!r} is not a usable name: give 1 to 100 printable characters with a letter or digit in them."""


class ConditionError(Refused):
    """The condition can not be used. {reason}"""


class ExportError(Refused):
    """{path}: {reason}"""


class SourceError(Refused):
    """{where}: {reason}"""


class SpaceMismatchError(Refused):
    """Provider {provider!r} embeds into {wanted}, but dataset {dataset} is searched in {active}.

    Vectors of two spaces are never mixed. Build the other space with `evervec spaces build --provider {provider}`.
    """


class NoProviderError(Refused):
    """Dataset {dataset} is searched in {space}, and no provider embeds into that space.

    Add one with `evervec providers add NAME --type {type} --model {model}`.
    """


class UnreadablePathError(Refused):
    """{path!r} can not be read: {reason}. Give an existing file or folder that this user may read."""


class SourceMissingError(UnreadablePathError):
    """{path!r} can not be read: {reason}. It is {which} of dataset {dataset}. Nothing was deleted.

    If a disk is not mounted, mount it. If the path is really gone, `evervec index {dataset} --full --allow-empty` forgets
    it and every other missing path, with their documents. If it was moved, add its new place with `evervec ingest files`.
    """


class UnknownTableError(Refused):
    """There is no table {table!r} in the source of this dataset. Known tables: {known}."""


class TableBusyError(EvervecError):
    """Table {table} is locked: {blockers}.

    Nothing was changed. Run it again when that has ended, or end it with `SELECT pg_terminate_backend(PID)`.
    """


class RowsUnreadableError(EvervecError):
    """The text of a row of {table} can not be made ({reason}). The next change of the row is tried again."""


# --- the stack ------------------------------------------------------------------------------------------------


class StackError(EvervecError):
    """{reason}"""


class HomeNotWritableError(StackError):
    """EVERVEC_HOME={home} can not be written ({reason}). Point EVERVEC_HOME at a folder that this user owns."""


class PortTakenError(StackError):
    """Port {port} is taken, so {server} can not listen there. Free it, or set {variable} to another one."""


class ServerStartError(StackError):
    """{server} did not start within {seconds} s. The end of its log: {log} The whole log: {path}"""


class DatabaseDownError(EvervecError):
    """PostgreSQL at {where} does not answer ({reason}).

    Start it, or unset EVERVEC_DATABASE_URL for the embedded one.
    """


class DatabaseAddressError(Refused):
    """{setting} can not be used: {reason}.

    An address is like postgresql://user:password@127.0.0.1:5432/evervec; unset, the embedded PostgreSQL is used.
    """


class PoolerError(Refused):
    """{purpose} needs a session of its own, and EVERVEC_DATABASE_URL leads to a pooler, which gives none.

    Set EVERVEC_DATABASE_DIRECT_URL to the address of the server itself.
    """


class DatabaseRefusedError(EvervecError):
    """PostgreSQL at {where} refuses: {reason}. {advice}"""


class PgvectorMissingError(EvervecError):
    """This PostgreSQL {major} has no pgvector. Install its package on the server: postgresql-{major}-pgvector with Debian.

    A managed server has it already, or in the list of extensions that its administrator allows. See docs/connecting.md.
    """


class MigrationRightsError(EvervecError):
    """The role {user} may not {what}. Let a role that may run once in this database: {statement};

    Then run `evervec migrate` again. docs/connecting.md says which role that is at a provider.
    """


class MissingRightsError(EvervecError):
    """The role {role} lacks rights. Let the owner of schema {schema}, or a superuser, run in this database: {statements}

    docs/connecting.md says what a role needs.
    """


class SourceDownError(EvervecError):
    """The source {name} at {where} does not answer ({reason}). Nothing was changed; the next run continues from here."""


class OtherDatabaseDownError(EvervecError):
    """The database of attached tables at {where} does not answer ({reason}).

    What is written there meanwhile is taken in when it answers again. If it is gone for good, run `evervec detach TABLE
    --forget`.
    """


class OtherDatabaseRefusedError(EvervecError):
    """The database of attached tables at {where} refuses: {reason}.

    See what a role needs there with `evervec attach TABLE --url … --print-sql`, and let its administrator run that.
    """


class MissingOutboxRightsError(EvervecError):
    """The role of --url at {where} may not read the change records there. Let their owner run: {statements};

    Then attach the table again.
    """


class ConflictError(EvervecError):
    """PostgreSQL ended this transaction, because another one was in its way ({reason}).

    Nothing of it was saved: run it again.
    """


class LeaseLostError(EvervecError):
    """Another process has taken over {name!r}: this one, or its connection, stood still for longer than its lease.

    What it had committed stays, and the other process goes on from there. EVERVEC_LEASE_SECONDS is how long a lease lasts.
    """


class QueueDownError(EvervecError):
    """NATS at {where} does not answer ({reason}).

    Start it, or unset EVERVEC_NATS_URL to do without it. Committed rows are safe: a worker's sweep finds them.
    """


class ServerTooOldError(EvervecError):
    """{server} {found} is too old, {least} is the least: {why}."""


class StreamMismatchError(EvervecError):
    """The NATS stream {stream} exists with {field}={found}, but Evervec needs {wanted}, and NATS can not change it in place.

    Remove it with `nats stream rm {stream}` (rows are safe in PostgreSQL) or set EVERVEC_STREAM.
    """


class SchemaMismatchError(EvervecError):
    """The database has schema {found}, but this Evervec needs {wanted}. Run `evervec migrate`."""


class FeedError(EvervecError):
    """The change feed can not be read: {reason}. `evervec providers list` shows the active space and its width."""


# --- errors of a provider: `domain/ladder.py` decides by the class what happens next --------------------------------


class ProviderError(EvervecError):
    """{provider}: {detail}"""

    code: ClassVar[str] = "transient"

    def __init__(self, provider: str, detail: str) -> None:
        super().__init__(provider=provider, detail=detail[:500])
        self.provider = provider
        self.detail = detail[:500]


class TransientError(ProviderError):
    """{provider} does not work at the moment: {detail}"""

    def __init__(self, provider: str, detail: str, delay: float = 0.0) -> None:
        super().__init__(provider, detail)
        self.delay = delay


class RateLimitedError(ProviderError):
    """{provider} limits the rate of requests: {detail}"""

    code = "rate_limited"

    def __init__(self, provider: str, detail: str, delay: float) -> None:
        super().__init__(provider, detail)
        self.delay = delay


class QuotaExhaustedError(ProviderError):
    """The quota of {provider} is used up: {detail}"""

    code = "quota_exhausted"

    def __init__(self, provider: str, detail: str, until: datetime | None = None) -> None:
        super().__init__(provider, detail)
        self.until = until


class AuthError(ProviderError):
    """{provider} does not accept the key: {detail}"""

    code = "auth"


class ConfigError(ProviderError):
    """{provider} is configured wrongly: {detail}"""

    code = "config"


class BadInputError(ProviderError):
    """{provider} refuses the text: {detail}"""

    code = "bad_input"


class TooLargeError(ProviderError):
    """{provider} refuses the request as too large: {detail}"""

    code = "too_large"

    def __init__(self, provider: str, detail: str, texts: int | None = None) -> None:
        super().__init__(provider, detail)
        self.texts = texts


class BadResponseError(ProviderError):
    """{provider} gave an invalid answer: {detail}"""

    code = "bad_response"


class ResultsDeletedError(BadResponseError):
    """{provider} has deleted the results: {detail}"""


class NoBatchError(Refused):
    """Provider {provider!r} is of type {type}, which has no batch API.

    Add one that has (type {types}) with `evervec providers add`, or embed at once: `evervec backfill`, or `evervec ingest`
    without --batch.
    """


class NoMediaModelError(Refused):
    """Pictures and sounds can not be ingested: provider {provider!r} of type {type} has {missing}.

    Add one that has (type {types}) with `evervec providers add NAME --type TYPE --model MODEL --chat-model MODEL`.
    """


class UnknownBatchJobError(Refused):
    """There is no batch job {job!r}. `evervec batch list` shows the ones that exist."""


# --- the mirror -----------------------------------------------------------------------------------------------


class MirrorFolderError(EvervecError):
    """Mirrors can not be kept in {path} ({reason}). {advice}"""


class MirrorBusyError(EvervecError):
    """The mirror of dataset {dataset} was not written: {reason}. Load it again and write only newer changes."""


class MirrorFileError(EvervecError):
    """{reason}"""
