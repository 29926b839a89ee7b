"""Whether a mirror belongs to what the database is now: by its identity and its watermark, before any vector is compared."""

from evervec.domain.feed import DatabaseIdentity, Watermark
from evervec.errors import EvervecError
from evervec.store.embeddings.changes import FeedState


class OtherDatabaseError(Exception):
    """The mirror's watermark means nothing in this database: the feed can not update it."""


class OtherHistoryError(OtherDatabaseError):
    """The mirror is of another history of this database: every vector has to be compared before it is searched again."""


class NothingToMirrorError(Exception):
    """The dataset was deleted, or its space was dropped: there is nothing to mirror."""


def unrelated(identity: DatabaseIdentity, watermark: Watermark, feed: FeedState) -> OtherDatabaseError | None:
    """Return why the feed does not continue a mirror's watermark; None if it does."""
    if reason := feed.identity.foreign(identity):
        return OtherDatabaseError(f"the database is another one: {reason}")
    if reason := feed.identity.difference(identity):
        return OtherHistoryError(f"the database was promoted, restored or migrated: {reason}")
    if watermark.xmax > feed.watermark.xmax:
        older = f"transaction {feed.watermark.xmax}, not {watermark.xmax}"
        return OtherHistoryError(f"the database is older than its mirror ({older}): it was restored from a backup")
    return None


def failure(error: BaseException) -> str:
    """Return in words why a mirror could not be opened or built."""
    return str(error) if isinstance(error, EvervecError | NothingToMirrorError | OtherDatabaseError) else repr(error)
