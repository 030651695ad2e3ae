"""What waits to be written to one client, and in which order.

Control frames (answers, errors, questions) go first, then each attached session in turn, at most
a share of bytes each: a client that follows a busy session still gets its answers at once. Only
control frames are buffered, within bounds; entries stay in their logs until they are written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from moorage_daemon.connection.attachment import Attachment
from moorage_protocol.errors import RpcError


SHARE = 64 * 2**10  # bytes of one session per write: small enough to be fair, large enough to join
MAX_CONTROL_FRAMES = 1000  # a client with that many unread answers does not read
MAX_CONTROL_BYTES = 2**20  # beyond one full answer


@dataclass(eq=False, slots=True)
class Outbox:
    """Filled from anywhere, emptied by the connection's one writer task.

    `on_overflow` ends the connection: the client takes its answers too slowly. It is called at
    once, as the writer may be waiting for that client.
    """

    on_overflow: Callable[[], None]
    attachments: dict[str, Attachment] = field(default_factory=dict[str, Attachment])
    _passed_over: Attachment | None = None  # it needed the store and is first the next time
    _overflown: bool = False
    _control: list[bytes] = field(default_factory=list[bytes])
    _control_bytes: int = 0
    _transport_is_due: bool = False
    _due: trio.Event = field(default_factory=trio.Event)
    _idle: trio.Event = field(default_factory=trio.Event)

    def wake(self) -> None:
        """There may be something to write."""
        self._due.set()
        if self._idle.is_set():
            self._idle = trio.Event()

    def wake_transport(self) -> None:
        """The transport has something of its own to write: a pong, the end of a conversation."""
        self._transport_is_due = True
        self.wake()

    def put(self, frames: Sequence[bytes]) -> None:
        """Add control frames."""
        for frame in frames:
            self._control.append(frame)
            self._control_bytes += len(frame)
        many = len(self._control) > MAX_CONTROL_FRAMES
        heavy = len(self._control) > 1 and self._control_bytes > MAX_CONTROL_BYTES
        if (many or heavy) and not self._overflown:
            self._overflown = True
            self.on_overflow()
        self.wake()

    async def next(self) -> list[bytes]:
        """Wait for the next write: messages in their order, none when the transport itself is due.

        Raises `RpcError` for a log that cannot be read; that one is followed no longer.
        """
        while True:
            self._due = trio.Event()
            out = self._take_control()
            for attachment in self._in_turn():
                if not self._is_followed(attachment):
                    continue  # let go while another was fetched
                if not self._take_entries(attachment, out):
                    if out:
                        self._passed_over = attachment
                        self._due.set()
                        return out
                    await self._fetch_entries(attachment, out)
            if out or self._transport_is_due:
                self._transport_is_due = False
                self._due.set()  # look again after this write: more may be there
                return out
            if any(attachment.cursor.behind for attachment in self.attachments.values()):
                continue  # what was passed so far is nothing that this client is sent
            self._idle.set()
            await self._due.wait()

    def _in_turn(self) -> list[Attachment]:
        """The attachments, first the one that had to wait for those in memory."""
        first, self._passed_over = self._passed_over, None
        return sorted(self.attachments.values(), key=lambda attachment: attachment is not first)

    def _is_followed(self, attachment: Attachment) -> bool:
        return self.attachments.get(attachment.session.id) is attachment

    def _take_control(self) -> list[bytes]:
        out, self._control = self._control, []
        self._control_bytes = 0
        return out

    def _take_entries(self, attachment: Attachment, out: list[bytes]) -> bool:
        """Add an attachment's share; False when the store has to be asked for it."""
        entries = attachment.cursor.take(SHARE)
        if entries is None:
            return False
        attachment.render(entries, out)
        self._end_if_over(attachment, out)
        return True

    async def _fetch_entries(self, attachment: Attachment, out: list[bytes]) -> None:
        cursor = attachment.cursor
        try:
            entries = await cursor.fetch(SHARE)
        except RpcError as error:
            if self._is_followed(attachment):
                del self.attachments[attachment.session.id]
                self.put(attachment.fail(error))
            raise
        if attachment.cursor is cursor and self._is_followed(attachment):
            attachment.render(entries, out)
            self._end_if_over(attachment, out)

    def _end_if_over(self, attachment: Attachment, out: list[bytes]) -> None:
        word = attachment.ending()
        if word is not None:
            if attachment.moorage:
                out.append(word)
            self.detach(attachment.session.id)

    def detach(self, session_id: str) -> None:
        """Write no more of a session; answers that waited for it go out now."""
        attachment = self.attachments.pop(session_id, None)
        if attachment is not None:
            self.put(attachment.close())

    async def drained(self) -> None:
        """Wait until nothing is left to write."""
        self.wake()
        await self._idle.wait()

    def close(self) -> None:
        """The client is gone: its sessions go on without it."""
        for attachment in list(self.attachments.values()):
            attachment.close()
        self.attachments.clear()
