"""What moves whole frames between the daemon and one client."""

from collections.abc import Callable, Sequence
from typing import Protocol

from moorage_protocol.framing import Framed


class TransportClosed(Exception):
    """The other end is gone, or stopped taking anything."""


class Transport(Protocol):
    """A carrier of frames. `receive` and `send` may run at the same time, each in one task."""

    @property
    def name(self) -> str:
        """The word for it in lists: "unix", "websocket"."""
        ...

    async def receive(self) -> Sequence[Framed]:
        """The next frames, in order, at least one; raises `TransportClosed` at the end."""
        ...

    async def send(self, messages: Sequence[bytes]) -> None:
        """Write messages, joined; none may be too.

        Raises `TransportClosed`. When it is cancelled a frame may be cut, so the connection is
        over: nothing may be sent behind it.
        """
        ...

    def on_due(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when the transport itself has something to send."""
        ...

    async def aclose(self) -> None:
        """Close it, politely if that is quick; idempotent."""
        ...
