"""How fast the fake answers requests that embed, and how many of them it serves in a minute, or in whatever it takes for one."""

import time
from dataclasses import dataclass


@dataclass
class Pace:
    """`delay` seconds an answer; at most `most` requests in each window of `seconds`, which begins with its first request."""

    delay: float = 0.0
    most: int | None = None
    seconds: float = 60.0
    _began: float = 0.0
    _served: int = 0

    def count(self) -> float | None:
        """Count a request. Return None if it is served, else the seconds until the next window."""
        now = time.monotonic()
        if now - self._began >= self.seconds:
            self._began, self._served = now, 0
        if self.most is not None and self._served >= self.most:
            return self._began + self.seconds - now
        self._served += 1
        return None
