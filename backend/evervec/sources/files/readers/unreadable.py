"""The one way in which a reader says that a file holds no text for us; who answers it is `reading.py`."""

from evervec.errors import EvervecError


class Unreadable(EvervecError):
    """{reason}: {detail}"""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason=reason, detail=detail)
        self.reason = reason
        self.detail = detail
