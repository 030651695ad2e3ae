"""How fast a client is read, so that one that floods takes no more than its share.

A client that sends too much is read later, and waits in its own socket. Nothing of it is refused
or dropped: telling a cancel from the rest costs most of what answering costs, and to lose one is
the worst that can happen. What others send is on their own connections and waits for none of this.
"""

from dataclasses import dataclass, field

import trio


RATE = 1000.0  # frames a second for good; a client that waits for its answers sends some hundreds
BURST = 2000  # frames at once: as many as a bridge has held and sends again to a new daemon
STRIDE = 16  # frames before others have their turn: below a millisecond


@dataclass(eq=False, slots=True)
class Pace:
    """Of one connection: a bucket of frames that it may send, filled at `RATE` up to `BURST`."""

    _left: float = BURST
    _filled_at: float = field(default_factory=trio.current_time)
    _stride: int = 0

    async def wait(self) -> None:
        """Wait until the next frame may be handled; most of the time it may be at once."""
        self._stride += 1
        if self._stride <= STRIDE:
            return
        self._stride = 1
        self._fill()
        if self._left < STRIDE:
            await trio.sleep((STRIDE - self._left) / RATE)
            self._fill()
        else:
            await trio.lowlevel.checkpoint()
        self._left -= STRIDE

    def _fill(self) -> None:
        now = trio.current_time()
        self._left = min(BURST, self._left + (now - self._filled_at) * RATE)
        self._filled_at = now
