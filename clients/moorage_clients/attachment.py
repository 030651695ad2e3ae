"""A session's log as one client follows it: from a place on, in order, each entry once.

The place is the number of the message that was handed out last. So it outlives a connection: what
was lost on the way is sent again, what was handed out is not.
"""

from typing import Protocol

import trio

from moorage_clients.connection import Connection
from moorage_clients.errors import ConnectionLost
from moorage_clients.feed import Feed
from moorage_clients.messages import Message
from moorage_protocol.errors import RpcError
from moorage_protocol.moorage import Access, AttachParams, DetachReason, Snapshot


class Connected(Protocol):
    """Who has a connection, and gets another one when it is lost."""

    @property
    def connection(self) -> Connection:
        """The present connection."""
        ...

    async def reconnect(self) -> None:
        """Connect again if the connection is lost."""
        ...


class Attachment:
    """Iterate over it for the messages; the end of the iteration is the end of the attachment.

    `seq` is the number of the last message handed out; before the first one it is the place the
    attachment began at. After the end `detached` says why. When the connection is lost the
    iteration raises `ConnectionLost`, and goes on after `reattach`. Numbers with a gap raise
    `OutOfOrder`.
    """

    def __init__(
        self, client: Connected, session_id: str, access: Access, after_seq: int | None
    ) -> None:
        self.session_id = session_id
        self.seq = after_seq
        self.detached: DetachReason | None = None
        self._client = client
        self._access = access
        self._connection = client.connection
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
        await self._client.reconnect()
        connection, feed = self._client.connection, Feed()

        def attached(outcome: Snapshot | RpcError | ConnectionLost) -> None:
            if not isinstance(outcome, Snapshot) or feed.is_over:
                return
            feed.last = outcome.seq if self.seq is None else min(self.seq, outcome.seq)
            following = connection.following(self.session_id)
            following.sequence.attached(feed.last)
            following.feeds.append(feed)

        params = AttachParams(session_id=self.session_id, after_seq=self.seq, access=self._access)
        try:
            snapshot = await connection.request(
                "_moorage/session/attach", params, Snapshot, attached
            )
        except trio.Cancelled:
            connection.unfollow(self.session_id, feed, detach=True)
            raise
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
        try:
            message = await self._feed.take()
        except trio.EndOfChannel:
            self.detached = self._feed.detached
            raise StopAsyncIteration from None
        if message.seq is not None:
            self.seq = message.seq
        return message
