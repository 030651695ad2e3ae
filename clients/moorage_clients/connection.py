"""One conversation with a daemon: one task that reads, one that writes, and what is open.

The reader hands every message on in the order it came and waits when its taker does not keep up:
it then stops reading the socket, so nothing ever piles up here. What follows from that is on the
caller's side: an answer that stands behind unread updates arrives when they are read.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import trio

from moorage_clients.errors import ConnectionLost, OutOfOrder, TooLarge
from moorage_clients.feed import Feed
from moorage_clients.links import Link
from moorage_clients.messages import Message, read_entry, read_update
from moorage_clients.sequence import Sequence
from moorage_protocol import jsonrpc, lenient
from moorage_protocol.acp import (
    Cancelled,
    PermissionParams,
    PermissionResult,
    Selected,
    SessionParams,
)
from moorage_protocol.errors import (
    InvalidParams,
    MethodNotFound,
    Overloaded,
    RequestCancelled,
    RpcError,
)
from moorage_protocol.framing import MAX_FRAME_BYTES
from moorage_protocol.jsonrpc import Notification, Request, RequestId
from moorage_protocol.moorage import AttachParams, Detached, Snapshot
from moorage_protocol.peer import Answer, CancelRequest, Dropped, Fault, Peer


R = TypeVar("R")

MAX_QUEUED = 16  # frames that wait to be written; then requests wait
MAX_JOINED = 64  # frames in one write
MAX_QUESTIONS = 64  # of the daemon's requests that are answered at one time

logger = logging.getLogger(__name__)

# Decides a question: gives the id of an option, or None to say `cancelled`. It is cancelled when
# somebody else has answered.
OnPermission = Callable[[PermissionParams], Awaitable[str | None]]


Outcome = msgspec.Raw | RpcError | ConnectionLost


def _decoded(outcome: Outcome, shape: type[R]) -> R | RpcError | ConnectionLost:
    if not isinstance(outcome, msgspec.Raw):
        return outcome
    try:
        return lenient.decode(outcome, shape)
    except InvalidParams as error:
        return error


@dataclass(eq=False)
class Following:
    """What this connection knows of one session: its place in the log, and who reads along."""

    sequence: Sequence
    feeds: list[Feed] = field(default_factory=list[Feed])
    is_left: bool = False  # a detach is on its way: what still comes is for nobody

    async def deliver(self, message: Message, size: int) -> None:
        """Hand a message to everybody; a number out of order ends all feeds with the error."""
        if self.is_left:
            return
        if message.seq is not None:
            try:
                self.sequence.admit(message.seq)
            except OutOfOrder as error:
                logger.error("a log came out of order", extra={"session": message.session_id})
                self.end(error)
                self.sequence.expected = None
                return
        for feed in tuple(self.feeds):
            await feed.put(message, size)

    def end(self, error: Exception | None = None) -> None:
        """No more messages for anybody."""
        for feed in self.feeds:
            feed.end(error)
        self.feeds.clear()


class Connection:
    """A conversation over one link. `lost` is set, with the reason, when it is over.

    `on_loss` is called in that moment, before anybody who waits is told.
    """

    def __init__(
        self,
        link: Link,
        on_permission: OnPermission | None,
        on_loss: Callable[["Connection"], None] | None = None,
    ) -> None:
        self.lost: ConnectionLost | None = None
        self.lost_at = 0.0
        self._on_loss = on_loss
        self._over = trio.Event()
        self._link = link
        self._on_permission = on_permission
        self._peer: Peer[Callable[[Outcome], None]] = Peer()
        self._outgoing, self._to_write = trio.open_memory_channel[bytes](MAX_QUEUED)
        self._sessions: dict[str, Following] = {}
        self._questions: dict[RequestId, trio.CancelScope] = {}
        self._writer_done = trio.Event()
        self._scope = trio.CancelScope()

    # ---- life

    async def run(
        self, *, task_status: trio.TaskStatus["Connection"] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until the link is lost or `close` was called; gives itself when it is ready."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    task_status.started(self)
                    await self._read(nursery)
        finally:
            self._end(ConnectionLost())

    def abort(self) -> None:
        """End at once."""
        self._end(ConnectionLost())

    async def close(self) -> None:
        """Write what waits, then end; callers bound how long that may take."""
        self._outgoing.close()
        await self._writer_done.wait()
        self.abort()

    async def wait_lost(self) -> None:
        """Wait until it is over."""
        await self._over.wait()

    def _end(self, error: ConnectionLost) -> None:
        if self.lost is not None:
            return
        self.lost, self.lost_at = error, trio.current_time()
        self._over.set()
        if self._on_loss is not None:
            self._on_loss(self)
        self._outgoing.close()
        for settle in self._peer.abandon():
            settle(error)
        for session in self._sessions.values():
            session.end(error)
        self._scope.cancel()

    async def _read(self, nursery: trio.Nursery) -> None:
        try:
            while True:
                await self._receive(await self._link.receive(), nursery)
        except ConnectionLost as error:
            self._end(error)

    async def _write(self) -> None:
        try:
            async for first in self._to_write:
                await self._link.send([first, *self._more()])
        except ConnectionLost:
            self._to_write.close()  # the reader still gets what the daemon said before
        finally:
            self._writer_done.set()

    def _more(self) -> list[bytes]:
        frames: list[bytes] = []
        while len(frames) < MAX_JOINED:
            try:
                frames.append(self._to_write.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return frames

    # ---- what comes in

    async def _receive(self, frame: bytes, nursery: trio.Nursery) -> None:
        match self._peer.receive(frame):
            case Answer(settle, result):
                settle(result)
            case Notification(method, params):
                try:
                    await self._notified(method, params, len(frame))
                except InvalidParams as error:
                    logger.warning("a notification of another shape: %s", error.message)
            case Request() as request:
                self._asked(request, nursery)
            case Dropped():
                pass  # to a request that was given up
            case Fault(error=error):
                logger.warning("a frame that is no message: %s", error)

    async def _notified(self, method: str, params: msgspec.Raw, size: int) -> None:
        match method:
            case "session/update":
                update = read_update(params)
                await self._deliver(update, size)
            case "_moorage/session/entry":
                await self._deliver(read_entry(params), size)
            case "_moorage/session/detached":
                self._detached(lenient.decode(params, Detached))
            case "$/cancel_request":
                scope = self._questions.get(lenient.decode(params, CancelRequest).request_id)
                if scope is not None:
                    scope.cancel()
            case _:
                pass  # of a newer daemon

    async def _deliver(self, message: Message, size: int) -> None:
        await self.following(message.session_id).deliver(message, size)

    def _detached(self, notice: Detached) -> None:
        session = self._sessions.pop(notice.session_id, None)
        if session is not None:
            for feed in session.feeds:
                feed.detached = notice.reason
            session.end()

    def _asked(self, request: Request, nursery: trio.Nursery) -> None:
        if len(self._questions) >= MAX_QUESTIONS or request.id in self._questions:
            answer = jsonrpc.encode_error(request.id, Overloaded())
            nursery.start_soon(self._reply, answer)
        else:
            self._questions[request.id] = scope = trio.CancelScope()
            nursery.start_soon(self._answer, request, scope)

    async def _answer(self, request: Request, scope: trio.CancelScope) -> None:
        answer = jsonrpc.encode_error(request.id, RequestCancelled())
        try:
            with scope:
                answer = jsonrpc.encode_result(request.id, await self._decide(request))
        except RpcError as error:
            answer = jsonrpc.encode_error(request.id, error)
        finally:
            del self._questions[request.id]
        await self._reply(answer)

    async def _decide(self, request: Request) -> PermissionResult:
        if request.method != "session/request_permission" or self._on_permission is None:
            raise MethodNotFound  # leaves the question to the others
        params = lenient.decode(request.params, PermissionParams)
        option = await self._on_permission(params)
        return PermissionResult(
            outcome=Cancelled() if option is None else Selected(option_id=option)
        )

    async def _reply(self, answer: bytes) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._outgoing.send(answer)

    # ---- what goes out

    async def request(
        self,
        method: str,
        params: msgspec.Struct,
        shape: type[R],
        then: Callable[[R | RpcError | ConnectionLost], None] | None = None,
    ) -> R:
        """Ask and wait for the answer; raises the `RpcError` that was answered, `ConnectionLost`.

        `then` gets the outcome in the reader, before anything that follows it on the wire; it does
        so too if the wait was cancelled, which takes nothing back: what was asked for may happen.
        """
        answered, outcomes = trio.Event(), list[R | RpcError | ConnectionLost]()

        def settle(outcome: R | RpcError | ConnectionLost) -> None:
            if then is not None:
                then(outcome)
            outcomes.append(outcome)
            answered.set()

        await self.start_request(method, params, shape, settle)
        await answered.wait()
        match outcomes[0]:
            case ConnectionLost():
                raise self._loss()
            case RpcError() as error:
                raise error
            case found:
                return found

    async def start_request(
        self,
        method: str,
        params: msgspec.Struct,
        shape: type[R],
        then: Callable[[R | RpcError | ConnectionLost], None],
    ) -> None:
        """Ask, and have `then` called with the outcome.

        Raises `ConnectionLost` at once only, and `TooLarge` for what no daemon would read.
        """

        def settle(outcome: msgspec.Raw | RpcError | ConnectionLost) -> None:
            then(_decoded(outcome, shape))

        if self.lost is not None:
            raise self._loss()
        request_id, frame = self._peer.request(method, params, settle)
        if len(frame) > MAX_FRAME_BYTES:
            self._peer.retract(request_id)
            raise TooLarge(len(frame), MAX_FRAME_BYTES)
        try:
            await self._outgoing.send(frame)
        except BaseException as error:
            self._peer.retract(request_id)  # it was never sent
            if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                raise self._loss() from None
            raise

    def _loss(self) -> ConnectionLost:
        """The loss, as an exception of its own for everybody who meets it."""
        return ConnectionLost() if self.lost is None else ConnectionLost(self.lost.problem)

    async def notify(self, method: str, params: msgspec.Struct) -> None:
        """Send a notification; raises `ConnectionLost`."""
        try:
            await self._outgoing.send(jsonrpc.encode_notification(method, params))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._loss() from None

    # ---- sessions

    def following(self, session_id: str) -> Following:
        """What is known of a session here."""
        found = self._sessions.get(session_id)
        if found is None:
            found = self._sessions[session_id] = Following(Sequence(session_id))
        return found

    async def attach(self, params: AttachParams, feed: Feed) -> Snapshot:
        """Attach, and have `feed` get what follows on the answer.

        `feed.last` is set to where that begins. Raises the `RpcError` that was answered, and
        `ConnectionLost`.
        """
        after = params.after_seq

        def attached(outcome: Snapshot | RpcError | ConnectionLost) -> None:
            if not isinstance(outcome, Snapshot) or feed.is_over:
                return
            feed.last = outcome.seq if after is None else min(after, outcome.seq)
            following = self.following(params.session_id)
            following.sequence.attached(feed.last)
            following.feeds.append(feed)

        try:
            return await self.request("_moorage/session/attach", params, Snapshot, attached)
        except trio.Cancelled:
            self.unfollow(params.session_id, feed, detach=True)
            raise

    def unfollow(self, session_id: str, feed: Feed, *, detach: bool) -> None:
        """A reader of a session is gone; `detach` if the daemon may stop sending for it alone."""
        feed.drop()
        session = self._sessions.get(session_id)
        if session is None:
            return
        if feed in session.feeds:
            session.feeds.remove(feed)
        if detach and not session.feeds and not session.is_left and self.lost is None:
            self._detach(session_id, session)

    def _detach(self, session_id: str, session: Following) -> None:
        """Have the daemon send no more of a session that nobody reads; does not wait."""

        def left(_: object) -> None:
            session.is_left = False
            session.sequence.expected = None
            if not session.feeds and self._sessions.get(session_id) is session:
                del self._sessions[session_id]

        params = SessionParams(session_id=session_id)
        request_id, frame = self._peer.request("_moorage/session/detach", params, left)
        try:
            self._outgoing.send_nowait(frame)
            session.is_left = True
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._peer.retract(request_id)  # rather messages that nobody reads than a wait
