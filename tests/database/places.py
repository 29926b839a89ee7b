"""Where Evervec's objects are in a database, as these tests and the other programs of a team name them."""

from evervec.settings import Settings
from evervec.store.schema.embeddables import EMBEDDABLES, Embeddable

SCHEMA: str = Settings.model_fields["database_schema"].default
"""The schema of everything that Evervec owns, unless EVERVEC_SCHEMA says otherwise."""

MESSAGES, EMBEDDINGS = f"{SCHEMA}.messages", f"{SCHEMA}.embeddings"
TOMBSTONES, STATUS = f"{SCHEMA}.vector_tombstones", f"{SCHEMA}.embedding_status"


def place(embeddable: Embeddable, schema: str = SCHEMA) -> str:
    """Return the table's full name."""
    return f"{schema}.{embeddable.table}"


TABLES = tuple(place(embeddable) for embeddable in EMBEDDABLES)
