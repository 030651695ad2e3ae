"""A connection: reads frames, dispatches them in their order, and has one task that writes.

The read loop awaits nothing but the next frame and its time for it; a request that has to wait
becomes an answer that stands in a log's order or a task of this connection's nursery. Only the
writer writes, and no turn's cancellation reaches it: a write that is cut ends the connection.
"""

import logging
import secrets
from dataclasses import dataclass, field
from typing import assert_never

import msgspec
import trio
from msgspec.structs import replace as replaced

from moorage_daemon.connection.attachment import Asked, Attachment, Token
from moorage_daemon.connection.lending import Call, Lending, LentToSession
from moorage_daemon.connection.notices import pause_message
from moorage_daemon.connection.outbox import Outbox
from moorage_daemon.connection.pace import Pace
from moorage_daemon.connection.prompts import Prompts
from moorage_daemon.connection.transport import Transport, TransportClosed
from moorage_daemon.dispatch import broken, dispatch
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Later, Now, OnVerdict
from moorage_daemon.handlers.starting import MAX_OPEN_REQUESTS
from moorage_daemon.handlers.turns import prompt_answer
from moorage_daemon.identity import Identity, Principal
from moorage_daemon.session import Session
from moorage_daemon.turn.turn import Turn
from moorage_protocol import jsonrpc, lenient
from moorage_protocol.acp import Cancelled, PermissionResult, Selected
from moorage_protocol.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    RequestCancelled,
    RpcError,
    StorageError,
)
from moorage_protocol.framing import Framed, Malformed, Oversize
from moorage_protocol.jsonrpc import Notification, Request, RequestId
from moorage_protocol.moorage import Access, Cause, ClientHello, InitializeParams, RespondOutcome
from moorage_protocol.peer import Answer as PeerAnswer, CancelRequest, Dropped, Fault, Peer


logger = logging.getLogger(__name__)

MAX_NAME = 100  # characters of what a client calls itself, as lists show it
MAX_FOUND = 1000  # answers that are looked up at once: as many prompts as a bridge sends again
LINGER = 1.0  # seconds in which a client that stopped sending still gets its answers


@dataclass(eq=False, slots=True)
class Connection:
    """One client. `identity` is a stranger's until it has said `initialize`."""

    desk: Desk
    transport: Transport
    identity: Identity
    initialized: bool = False
    _outbox: Outbox = field(init=False)
    _lending: Lending = field(init=False)
    _prompts: Prompts = field(init=False)
    _peer: Peer[Token] = field(default_factory=lambda: Peer(secrets.randbelow(2**48)))
    _open: dict[RequestId, trio.CancelScope] = field(
        default_factory=dict[RequestId, trio.CancelScope]
    )
    _waiting: int = 0  # requests at work in tasks
    _finding: int = 0  # of them, those whose answer is there already
    _unsettled: int = 0  # answers that wait for the disk
    _answered: trio.Event | None = None
    _nursery: trio.Nursery | None = None

    def __post_init__(self) -> None:
        self._outbox = Outbox(self._overflowed)
        self._lending = Lending(self)
        self._prompts = Prompts(self._answer_prompt)

    # ---- life

    async def run(self) -> None:
        """Serve the client until it goes."""
        self.transport.on_due(self._outbox.wake_transport)
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._write)
                await self._read()
                self._lending.end()
                with trio.move_on_after(LINGER):
                    await self._finish()
                self._nursery.cancel_scope.cancel()
        finally:
            self.desk.imports.drop_all_of(self.identity.connection)
            self._lending.end()
            self._prompts.close()
            self._outbox.close()
            self._peer.abandon()

    async def _finish(self) -> None:
        while self._waiting or self._unsettled:
            if self._answered is None or self._answered.is_set():
                self._answered = trio.Event()
            await self._answered.wait()
        await self._outbox.drained()

    async def drain(self) -> None:
        """Wait until the client has its answers and has been sent all there is for it."""
        await self._finish()

    async def _read(self) -> None:
        pace = Pace()
        while True:
            try:
                frames = await self.transport.receive()
            except TransportClosed:
                return
            for frame in frames:
                await pace.wait()
                self._receive(frame)

    async def _write(self) -> None:
        try:
            while True:
                await self.transport.send(await self._next_write())
        except TransportClosed:
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()

    def _overflowed(self) -> None:
        logger.warning("a client does not take its answers: closing it", extra=self._names())
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _next_write(self) -> list[bytes]:
        try:
            return await self._outbox.next()
        except NotFound:
            return []  # it was removed while this client was behind
        except RpcError as error:
            logger.warning("a log could not be read", exc_info=error, extra=self._names())
            return []

    def _names(self) -> dict[str, str]:
        return {"connection": self.identity.connection, "tui": self.identity.tui}

    # ---- frames

    def _receive(self, frame: Framed) -> None:
        if isinstance(frame, Oversize):
            error = InvalidRequest(f"A frame may have at most {frame.limit} bytes")
            return self._outbox.put([jsonrpc.encode_error(None, error)])
        if isinstance(frame, Malformed):
            error = InvalidRequest("A header must say the Content-Length")
            return self._outbox.put([jsonrpc.encode_error(None, error)])
        match self._peer.receive(frame):
            case Request(request_id, method, params):
                self._request(request_id, method, params)
            case Notification(method, params):
                self._notification(method, params)
            case PeerAnswer(token, result):
                if isinstance(token, Call):
                    self._lending.settle(token, result)
                else:
                    self._permission_answer(token, result)
            case Fault(reply, problem):
                logger.info("an unusable frame: %s", problem, extra=self._names())
                self._outbox.put([reply])
            case Dropped():
                logger.debug("a response nobody waits for", extra=self._names())
        return None

    def _request(self, request_id: RequestId, method: str, params: msgspec.Raw) -> None:
        answer = dispatch(self.desk, self, method, params, initialized=self.initialized)
        self._answer(request_id, answer)

    def _notification(self, method: str, params: msgspec.Raw) -> None:
        if method == "$/cancel_request":
            return self._cancel_request(params)
        answer = dispatch(self.desk, self, method, params, initialized=self.initialized)
        if isinstance(answer, Later):
            self._start_later(None, answer, silent=True)
        return None

    # ---- answers

    def _answer(self, request_id: RequestId, answer: Answer | RpcError) -> None:
        match answer:
            case RpcError():
                self._outbox.put([jsonrpc.encode_error(request_id, answer)])
            case Now(result, then):
                self._outbox.put([jsonrpc.encode_result(request_id, result), *then])
            case AtSeq():
                self._answer_at(request_id, answer)
            case OnVerdict(session, turn):
                try:
                    self._prompts.wait(request_id, session, turn)
                except Overloaded as error:
                    self._answer(request_id, error)
                else:
                    self._say_that_it_waits(session, turn)
            case Later():
                self._start_later(request_id, answer)
            case _:
                assert_never(answer)

    def _say_that_it_waits(self, session: Session, turn: Turn) -> None:
        """Tell a plain client why nothing happens; the others have it in the log."""
        if self.identity.advertised or not session.is_paused or turn is session.turn:
            return
        word = pause_message(session.id, turn.generation, self._lending.capabilities)

        def tell(error: StorageError | None) -> None:
            self._outbox.put([word] if error is None else [])

        session.log.when_durable(turn.admitted_at, tell)

    def _answer_at(self, request_id: RequestId, answer: AtSeq) -> None:
        """Answer behind entry `seq` of a log, or with an error if it will not be durable."""
        frame = (
            jsonrpc.encode_error(request_id, answer.result)
            if isinstance(answer.result, RpcError)
            else jsonrpc.encode_result(request_id, answer.result)
        )
        self._send_at(request_id, answer, (frame, *answer.then))

    def _send_at(self, request_id: RequestId, answer: AtSeq, frames: tuple[bytes, ...]) -> None:
        def settle(error: StorageError | None) -> None:
            self._unsettled -= 1
            self._tell()
            attachment = self._outbox.attachments.get(answer.log.session_id)
            if error is not None:
                self._outbox.put([jsonrpc.encode_error(request_id, error)])
            elif attachment is not None and attachment.cursor.seq < answer.seq:
                replay = request_id if answer.is_replay else msgspec.UNSET
                attachment.answer_at(answer.seq, frames, replay)
            else:
                self._outbox.put(frames)

        self._unsettled += 1
        answer.log.when_durable(answer.seq, settle)

    def _tell(self) -> None:
        """Something of what `_finish` waits for is done."""
        if self._answered is not None:
            self._answered.set()

    def _answer_prompt(self, request_id: RequestId, session: Session, turn: Turn) -> None:
        assert turn.verdict is not None
        result = prompt_answer(turn.verdict, turn.generation)
        if not (isinstance(result, RpcError) or self.identity.advertised):
            result = replaced(result, meta=msgspec.UNSET)
        self._answer_at(request_id, AtSeq(session.log, turn.verdict_seq, result))

    def _start_later(self, request_id: RequestId, answer: Later, *, silent: bool = False) -> None:
        assert self._nursery is not None
        if not self._has_room_for(answer):
            return None if silent else self._answer(request_id, Overloaded())
        self._waiting += 1
        self._finding += answer.certain
        scope = trio.CancelScope()
        if not (silent or answer.certain):
            self._open[request_id] = scope
        self._nursery.start_soon(self._later, request_id, answer, scope, silent)
        return None

    def _has_room_for(self, answer: Later) -> bool:
        if answer.has_acted:
            return True
        if answer.certain:
            return self._finding < MAX_FOUND
        return self._waiting - self._finding < MAX_OPEN_REQUESTS

    async def _later(
        self, request_id: RequestId, answer: Later, scope: trio.CancelScope, silent: bool
    ) -> None:
        outcome: Answer | RpcError = RequestCancelled()
        try:
            with scope:
                result = await answer.work()
                outcome = result if isinstance(result, AtSeq) else Now(result)
        except Exception as error:  # noqa: BLE001 - the request → wire boundary, as in dispatch
            outcome = broken(error)
        finally:
            self._waiting -= 1
            self._finding -= answer.certain
            self._open.pop(request_id, None)
            self._tell()
        if not silent:
            self._answer(request_id, outcome)

    def _cancel_request(self, params: msgspec.Raw) -> None:
        try:
            request_id = lenient.decode(params, CancelRequest).request_id
        except RpcError:
            return
        prompted = self._prompts.find(request_id)
        if prompted is not None:
            session, turn = prompted
            session.stop(turn, Cause.CLIENT_RPC, self.identity.tui)
        elif request_id in self._open:
            self._open[request_id].cancel()

    # ---- questions

    def _permission_answer(self, asked: Asked, result: msgspec.Raw | RpcError) -> None:
        attachment = self._outbox.attachments.get(asked.session.id)
        if attachment is not None:
            attachment.asked.pop(asked.tool_call_id, None)
        session, call, here = asked.session, asked.tool_call_id, self.identity.connection
        match _outcome(result):
            case Selected(option_id=option):
                chosen = session.asks.select(call, option, self.identity.tui)
                if chosen is RespondOutcome.UNKNOWN:
                    session.asks.withdraw(call, here)
            case Cancelled():
                ask = session.asks.open.get(call)
                if session.asks.cancelled(call, here) and ask is not None:
                    turn = session.find(ask.generation)
                    if turn is not None:
                        session.stop(turn, Cause.CLIENT_RPC, self.identity.tui)
            case None:
                session.asks.withdraw(call, here)

    # ---- requests of ours, for what the client lends

    def open_request(self, method: str, params: msgspec.Struct, call: Call) -> int:
        """Send a request; its answer settles the call. Gives the request's id."""
        request, frame = self._peer.request(method, params, call)
        self._outbox.put([frame])
        return request

    def take_back(self, request: int, *, still_listening: bool) -> None:
        """Tell the client that a request is given up."""
        frame = self._peer.retract(request, still_listening=still_listening)
        self._outbox.put([frame] if frame is not None else [])

    # ---- what handlers ask of it

    def introduce(self, params: InitializeParams) -> Identity:
        """The client has said who it is."""
        hello = params.meta.moorage
        given = hello if isinstance(hello, ClientHello) else ClientHello()
        if given.tui_id is None:
            tui, _ = self.desk.tuis.issue()
        else:
            self.desk.tuis.prove(given.tui_id, given.tui_secret)
            tui = given.tui_id
        name = given.name or (params.client_info.name if params.client_info is not None else None)
        self.identity = Identity(
            connection=self.identity.connection,
            principal=self.identity.principal,
            tui=tui,
            advertised=isinstance(hello, ClientHello) and not hello.relay,
            name=name[:MAX_NAME] if name is not None else None,
            transport=self.transport.name,
            instance=given.instance,
        )
        self._lending.capabilities = params.client_capabilities
        self.initialized = True
        return self.identity

    def lends_to(self, session_id: str) -> LentToSession:
        """What the client lends to a session."""
        return LentToSession(self._lending, session_id)

    def access_to(self, session_id: str) -> Access | None:
        """How this connection attached to a session."""
        attachment = self._outbox.attachments.get(session_id)
        return attachment.access if attachment is not None else None

    def attach_new(self, session: Session) -> None:
        """Follow a session that was just created; its first entry is told by the answer."""
        self._follow(session, session.log.seq, Access.CONTROLLER, session.log.seq)

    def attach(
        self, session: Session, after: int | None, access: Access, *, continues: bool = False
    ) -> None:
        """Follow a session from entry `after`, or from now; never forward of where it is."""
        durable = session.log.durable
        start = durable if after is None else min(after, durable)
        live_from = start if continues else session.log.seq
        known = self._outbox.attachments.get(session.id)
        if known is not None and known.session is not session:
            self._outbox.detach(session.id)  # it was put away meanwhile and has come back
            known = None
        if known is None:
            self._follow(session, start, access, live_from)
            return
        known.access = access
        if access is not Access.CONTROLLER:
            self._outbox.put(known.withdraw())
        if start < known.cursor.seq:
            known.live_from = live_from
        # A new one in any case: what is being read for the old one would overtake the answer.
        known.cursor.close()
        start = min(start, known.cursor.seq)
        known.cursor = session.log.open_cursor(start, self._outbox.wake)
        self._ask_open(known)

    def _follow(self, session: Session, start: int, access: Access, live_from: int) -> None:
        attachment = Attachment(
            session=session,
            cursor=session.log.open_cursor(start, self._outbox.wake),
            access=access,
            live_from=live_from,
            connection=self.identity.connection,
            tui=self.identity.tui,
            origin=self.identity.origin,
            moorage=self.identity.advertised,
            peer=self._peer,
        )
        self._outbox.attachments[session.id] = attachment
        self._ask_open(attachment)

    def _ask_open(self, attachment: Attachment) -> None:
        questions: list[bytes] = []
        attachment.ask_open(questions)
        self._outbox.put(questions)

    def detach(self, session_id: str) -> None:
        """Follow a session no longer."""
        self._outbox.detach(session_id)


def _outcome(result: msgspec.Raw | RpcError) -> Selected | Cancelled | None:
    """What a client answered; None for anything that is no answer.

    An error that says the request was cancelled is the other form of `cancelled`.
    """
    if isinstance(result, RpcError):
        return Cancelled() if isinstance(result, RequestCancelled) else None
    try:
        return lenient.decode(result, PermissionResult).outcome
    except RpcError:
        return None


def stranger(connection: str, principal: Principal, transport: str) -> Identity:
    """Who a client is before it has said so."""
    return Identity(connection, principal, tui="", advertised=False, transport=transport)
