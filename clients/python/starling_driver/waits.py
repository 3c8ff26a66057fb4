"""Waits between attempts."""

import random

LEAST, MOST = 0.2, 30.0


class Waits:
    """Doubles the wait with each failure and draws half of it, so that clients which
    lost the same server do not come back together."""

    def __init__(self) -> None:
        self._full = 0.0

    def reset(self) -> None:
        """An acknowledgement has come."""
        self._full = 0.0

    def next(self, asked: float = 0.0) -> float:
        """Seconds to wait; asked is the least that the server wants."""
        self._full = min(MOST, max(LEAST, 2 * self._full))
        wait = random.uniform(self._full / 2, self._full)
        return max(wait, asked * random.uniform(1.0, 1.25))
