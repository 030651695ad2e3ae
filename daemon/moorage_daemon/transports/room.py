"""How many clients are taken in, and what happens while descriptors run out all the same.

Every client costs a descriptor, and so do the log, the database and each tool. Those come first:
clients beyond the limit are told to come again, so that the daemon can still do for the others
what they ask.
"""

import errno
import logging
import resource
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio


logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CLIENTS = 1000  # ten times what one person's terminals, editors and scripts come to
MIN_CLIENTS = 16  # however few descriptors there are
MAX_STRANGERS = 64  # WebSockets in their handshake; a client is through it in a millisecond
RESERVED = 128  # descriptors: the database has 6, a tool 3, files are read one at a time
KEPT_LOCAL = 8  # places for the unix socket alone: whoever runs the daemon can always get in
RETRY = 0.1  # seconds between two tries to accept
SAY_EVERY = 60.0  # seconds between two lines of log that say the same


@dataclass(eq=False)
class Room:
    """The places for clients, over all listeners."""

    limit: int
    taken: int = 0

    def has_place(self, *, keep: int = 0) -> bool:
        """Whether one more client fits so that `keep` places are left."""
        return self.taken + keep < self.limit

    @contextmanager
    def place(self) -> Generator[None]:
        """One client's place."""
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


def open_room() -> Room:
    """The room that this process's limit of descriptors leaves (getrlimit(2))."""
    return Room(fitting(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def fitting(descriptors: int) -> int:
    """How many clients a process with that many descriptors takes."""
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CLIENTS
    return max(MIN_CLIENTS, min(MAX_CLIENTS, descriptors - RESERVED - MAX_STRANGERS))


@dataclass(eq=False)
class Door:
    """Accepts clients of one listener, and waits for a descriptor where there is none.

    Neither the loop nor the log is filled meanwhile.
    """

    _said_at: float = -SAY_EVERY

    async def next(self, accept: Callable[[], Awaitable[T]]) -> T:
        """The next client; raises `trio.ClosedResourceError` once the listener is closed."""
        while True:
            try:
                return await accept()
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise trio.ClosedResourceError from error
                self.say(error)
                await trio.sleep(RETRY)

    def say(self, error: OSError) -> None:
        """Log why a client could not be taken in, unless that was said just now."""
        if trio.current_time() - self._said_at >= SAY_EVERY:
            self._said_at = trio.current_time()
            logger.warning("cannot accept a client, trying on", extra={"error": error.strerror})


class PatientListener(trio.abc.Listener[trio.SocketStream]):
    """A TCP listener behind such a door; `socket` is the listener's own."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.socket = listener.socket
        self._listener = listener
        self._door = Door()

    async def accept(self) -> trio.SocketStream:
        """The next client's stream."""
        return await self._door.next(self._listener.accept)

    async def aclose(self) -> None:
        """Accept nobody any more."""
        await self._listener.aclose()
