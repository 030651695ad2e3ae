"""A session's log as one client follows it: from a place on, in order, each entry once.

The place is the number of the message that was handed out last. So it outlives a connection: what
was lost on the way is sent again, what was handed out is not.
"""

import trio

from moorage_clients.conversation import Conversation
from moorage_clients.errors import CannotConnect, ConnectionLost
from moorage_clients.feed import Feed
from moorage_clients.messages import Message
from moorage_protocol.moorage import Access, AttachParams, DetachReason, Snapshot


class Attachment:
    """Iterate over it for the messages; the end of the iteration is the end of the attachment.

    `seq` is the number of the last message handed out; before the first one it is the place the
    attachment began at. After the end `detached` says why. When the connection is lost, or the
    daemon stops, the iteration goes on over the next one without a gap, and `returns` counts it;
    it raises `ConnectionLost` when there is none in time, or at once with a client that does not
    return by itself, and goes on after `reattach`. Numbers with a gap raise `OutOfOrder`.
    """

    def __init__(
        self, conversation: Conversation, session_id: str, access: Access, after_seq: int | None
    ) -> None:
        self.session_id = session_id
        self.seq = after_seq
        self.detached: DetachReason | None = None
        self.returns = 0
        self._conversation = conversation
        self._access = access
        self._connection = conversation.connection
        self._feed = Feed()
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The session as it was at the last attach; the messages follow on it."""
        assert self._snapshot is not None
        return self._snapshot

    async def reattach(self) -> Snapshot:
        """Attach behind the last message that was handed out, connecting again if need be.

        Raises `CannotConnect` and `ConnectionLost`, then try again; `NotFound` for a session that
        was killed, `CursorExpired` where the log does not reach back so far.
        """
        await self._conversation.reconnect()
        connection, feed = self._conversation.connection, Feed()
        params = AttachParams(
            session_id=self.session_id,
            after_seq=self.seq,
            access=self._access,
            continues=self._snapshot is not None,
        )
        snapshot = await connection.attach(params, feed)
        self._connection.unfollow(self.session_id, self._feed, detach=False)
        self._connection, self._feed, self._snapshot = connection, feed, snapshot
        if self.seq is None:
            self.seq = snapshot.seq
        return snapshot

    def leave(self) -> None:
        """Take no more messages; the session goes on."""
        self._connection.unfollow(self.session_id, self._feed, detach=True)

    def __aiter__(self) -> "Attachment":
        return self

    async def __anext__(self) -> Message:
        while True:
            try:
                message = await self._feed.take()
            except trio.EndOfChannel:
                self.detached = self._feed.detached
                if not (self._conversation.returns and self.detached is DetachReason.SHUTDOWN):
                    raise StopAsyncIteration from None
                await self._connection.wait_lost()  # until then it is the stopping daemon's
                await self._return()
            except ConnectionLost:
                if not self._conversation.returns:
                    raise
                await self._return()
            else:
                if message.seq is not None:
                    self.seq = message.seq
                return message

    async def _return(self) -> None:
        while True:
            await self._conversation.wait_connected()
            try:
                await self.reattach()
            except (CannotConnect, ConnectionLost):
                continue  # lost again: `wait_connected` knows for how long
            self.detached = None
            self.returns += 1
            return
