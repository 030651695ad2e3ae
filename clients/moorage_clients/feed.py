"""One session's messages on their way from the connection to whoever reads them.

A feed is bounded by bytes. When its reader does not read, `put` waits and the connection with it:
what nobody takes is left to the socket, and the daemon takes no harm from a client that is late.
"""

from collections import deque

import trio

from moorage_clients.messages import Message
from moorage_protocol.moorage import DetachReason


MOST_BYTES = 2**20  # that wait in one feed; one message more may come on top


class Feed:
    """The messages of one session for one reader, each numbered one once.

    `last` is the number up to which messages are not for this reader; None takes them all.
    """

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self.is_over = False
        self.detached: DetachReason | None = None  # why the daemon ended it
        self._error: Exception | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()

    async def put(self, message: Message, size: int) -> None:
        """Hand on a message of `size` bytes, waiting for room; nothing after the end."""
        if message.seq is not None and self.last is not None and message.seq <= self.last:
            return
        while self._bytes >= MOST_BYTES and not self.is_over:
            await self._taken.park()
        if self.is_over:
            return
        self.last = message.seq if message.seq is not None else self.last
        self._messages.append((message, size))
        self._bytes += size
        self._arrived.unpark()

    def end(self, error: Exception | None = None) -> None:
        """No more messages: the reader gets what is there, then the error or the end."""
        if not self.is_over:
            self.is_over, self._error = True, error
            self._arrived.unpark_all()
            self._taken.unpark_all()

    def drop(self) -> None:
        """The reader is gone, and with it what it did not take."""
        self.end(trio.ClosedResourceError("left"))
        self._messages.clear()

    async def take(self) -> Message:
        """The next message. Raises `trio.EndOfChannel` at the end, or the error the feed got."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self.is_over:
                raise trio.EndOfChannel
            await self._arrived.park()
        message, size = self._messages.popleft()
        self._bytes -= size
        self._taken.unpark_all()
        return message
