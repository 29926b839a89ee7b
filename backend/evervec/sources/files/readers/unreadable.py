"""The error of a reader for a file that has no text for us."""

from evervec.errors import EvervecError


class Unreadable(EvervecError):
    """{reason}: {detail}"""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason=reason, detail=detail)
        self.reason = reason
        self.detail = detail
