"""The databases of attached tables that are not ours: opened when they are first needed, closed with the process.

A worker also listens there, and knows which attachments to look at next.
"""

import asyncio
from functools import partial
from time import monotonic
from uuid import UUID

from evervec.store.captures.other_database import OtherDatabase
from evervec.store.rings.listener import Listener

LISTENER = "evervec listens"

LOOK_ON_SECONDS = 3.0
"""Seconds after a ring or after work in which an attachment is looked at again and again: a session rings once a second."""

CHECK_SECONDS = 15.0
"""Seconds between two checks of the triggers of a table in another database."""


class OtherDatabases:
    """The open connections to other databases, by address and schema; and when each attachment is looked at next."""

    def __init__(self, connect_seconds: float = 10, usual_seconds: float = 3) -> None:
        self._connect_seconds, self._usual_seconds = connect_seconds, usual_seconds
        self._listens = False
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._open: dict[tuple[str, str], OtherDatabase] = {}
        self._listeners: dict[tuple[str, str], Listener] = {}
        self._places: dict[UUID, tuple[str, str]] = {}
        self._rung: dict[tuple[str, str], float] = {}
        self._next: dict[UUID, float] = {}
        self._next_check: dict[UUID, float] = {}

    def listen(self) -> None:
        """Listen from now on in each of them, as workers do."""
        self._listens = True

    async def opened(self, url: str, schema: str, source_id: UUID | None = None) -> OtherDatabase:
        """Return an open database; with `source_id`, one that rings for this attachment. Raises what its `open` raises."""
        place = url, schema
        # one that does not answer keeps nobody from another
        async with self._opening.setdefault(place, asyncio.Lock()):
            if place not in self._open:
                database = OtherDatabase(url, schema, connect_seconds=self._connect_seconds)
                self._open[place] = await database.open()
        if source_id is not None:
            self._places[source_id] = place
            if self._listens and place not in self._listeners:
                listener = Listener(self._open[place], schema, LISTENER, partial(self._heard, place))
                self._listeners[place] = listener
                listener.start()
        return self._open[place]

    def is_due(self, source_id: UUID) -> bool:
        """Return whether an attachment is to be looked at now: its database rang, or it is time again."""
        now, place = monotonic(), self._places.get(source_id)
        rung = place is not None and self._rung.get(place, 0.0) > now
        return rung or self._next.get(source_id, 0.0) <= now

    def is_check_due(self, source_id: UUID) -> bool:
        """Return whether the triggers of an attachment are to be checked now, and take it as done."""
        now = monotonic()
        due = self._next_check.get(source_id, 0.0) <= now
        if due:
            self._next_check[source_id] = now + CHECK_SECONDS
        return due

    def forget_checks(self) -> None:
        """Have every attachment looked at and checked at once."""
        self._next.clear()
        self._next_check.clear()

    def looked(self, source_id: UUID, *, found: bool, pause: float | None = None) -> None:
        """Remember that an attachment was looked at, and whether there was anything: then more may follow soon.

        `pause` are the seconds until the next look, if they are not the usual ones.
        """
        now, place = monotonic(), self._places.get(source_id)
        self._next[source_id] = now + (self._usual_seconds if pause is None else pause)
        if found and place is not None:
            self._rung[place] = now + LOOK_ON_SECONDS

    def _heard(self, place: tuple[str, str], _payload: str | None) -> None:
        self._rung[place] = monotonic() + LOOK_ON_SECONDS

    async def aclose(self) -> None:
        """Close every connection; may be called twice."""
        listeners, self._listeners = self._listeners, {}
        opened, self._open = self._open, {}
        for listener in listeners.values():
            await listener.aclose()
        for database in opened.values():
            await database.aclose()
