"""How much of the disk is left alone: below that nothing new begins.

What runs goes on to its end, and what only ends something never asks: a daemon that took the last
bytes for a new prompt could not record how it ended.
"""

import logging
from collections.abc import Callable

import trio


logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks at the disk


class Floor:
    """Whether fewer than `least` bytes are free; `free` asks the system, None says nobody knows."""

    def __init__(self, free: Callable[[], int | None], least: int) -> None:
        self._free = free
        self.least = least
        self._looked = float("-inf")
        self._is_reached = False

    @property
    def is_reached(self) -> bool:
        """Whether nothing new may begin; at most a second old."""
        now = trio.current_time()
        if self.least > 0 and now - self._looked >= LOOK:
            self._looked = now
            self._look()
        return self._is_reached

    def _look(self) -> None:
        left = self._free()
        was_reached, self._is_reached = self._is_reached, left is not None and left < self.least
        if self._is_reached and not was_reached:
            logger.warning("little space is left: nothing new begins", extra={"free": left})
        elif was_reached and not self._is_reached:
            logger.info("there is space again", extra={"free": left})
