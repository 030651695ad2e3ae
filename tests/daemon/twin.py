"""A transport in memory, and a small client that speaks through it.

The daemon's side is everything it is in life: connection, dispatch, handlers. Only the bytes do
not leave the process, so a test decides what arrives in one read and when a client stops reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
import trio

from moorage_daemon.connection.transport import TransportClosed
from moorage_protocol import jsonrpc
from moorage_protocol.acp import Empty, Meta
from moorage_protocol.errors import ErrorObject, RpcError, from_object
from moorage_protocol.framing import Oversize
from moorage_protocol.moorage import (
    CancelResult,
    ConfigureResult,
    EntriesResult,
    KillResult,
    ListResult,
    LiveResult,
    LoadResult,
    NewResult,
    PromptResult,
    PromptVerdict,
    RespondOutcome,
    RespondResult,
    Snapshot,
    StatusResult,
    TurnRecord,
    TurnsResult,
    Welcome,
    WithdrawResult,
)


PATIENCE = 30  # seconds, of the test's own clock, that a test waits for anything
IN_FLIGHT = 4  # writes between daemon and client, as in a socket's buffers
UNREAD = 1000  # frames a test may send ahead

R = TypeVar("R")
Json = dict[str, Any]


class MemoryTransport:
    """The daemon's end: whole frames over bounded channels."""

    name = "memory"

    def __init__(
        self,
        incoming: trio.MemoryReceiveChannel[Sequence[bytes | Oversize]],
        outgoing: trio.MemorySendChannel[list[bytes]],
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def receive(self) -> Sequence[bytes | Oversize]:
        try:
            return await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise TransportClosed from None

    async def send(self, messages: Sequence[bytes]) -> None:
        try:
            await self._outgoing.send(list(messages))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise TransportClosed from None

    def on_due(self, wake: Callable[[], None]) -> None:
        """It never has anything to send of its own."""

    async def aclose(self) -> None:
        self._incoming.close()
        self._outgoing.close()
        await trio.lowlevel.checkpoint()


@dataclass(eq=False)
class Wire:
    """The client's end."""

    outgoing: trio.MemorySendChannel[Sequence[bytes | Oversize]]
    incoming: trio.MemoryReceiveChannel[list[bytes]]

    def close(self) -> None:
        self.outgoing.close()
        self.incoming.close()


def memory_pair() -> tuple[MemoryTransport, Wire]:
    """The two ends of one transport."""
    to_daemon, from_client = trio.open_memory_channel[Sequence[bytes | Oversize]](UNREAD)
    to_client, from_daemon = trio.open_memory_channel[list[bytes]](IN_FLIGHT)
    return MemoryTransport(from_client, to_client), Wire(to_daemon, from_daemon)


@dataclass(eq=False)
class Reply(Generic[R]):
    """The answer to one request; `place` is where it stands among all that the client was sent."""

    id: int
    shape: type[R]
    arrived: trio.Event = field(default_factory=trio.Event)
    message: Json | None = None
    place: int = -1

    @property
    def value(self) -> R:
        """The result; raises the `RpcError` that was answered instead."""
        assert self.message is not None, "not answered yet"
        if "error" in self.message:
            raise from_object(_as(self.message["error"], ErrorObject))
        return _as(self.message["result"], self.shape)

    async def result(self) -> R:
        with trio.fail_after(PATIENCE):
            await self.arrived.wait()
        return self.value


@dataclass(eq=False)
class PromptReply(Reply[PromptResult]):
    """The answer to a prompt."""

    async def verdict(self) -> PromptVerdict:
        """What it says to a client that knows moorage."""
        told = (await self.result()).meta
        assert isinstance(told, Meta)
        assert isinstance(told.moorage, PromptVerdict)
        return told.moorage


@dataclass(eq=False)
class Question:
    """A permission request that the client was sent."""

    id: int
    session: str
    call: str
    options: list[str]


@dataclass(eq=False)
class Client:
    """One client: sends what the test says, keeps all that it is sent in `messages`."""

    wire: Wire
    tui: str = ""
    secret: str | None = None
    connection: str = ""
    messages: list[Json] = field(default_factory=list[Json])
    questions: list[Question] = field(default_factory=list[Question])
    retracted: list[int] = field(default_factory=list[int])
    gone: bool = False
    asked: dict[int, str] = field(default_factory=dict[int, str])  # request id -> method
    _replies: dict[int, Reply[Any]] = field(default_factory=dict[int, Reply[Any]])
    _count: int = 0
    _news: trio.Event = field(default_factory=trio.Event)
    _reads: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._reads.set()

    # ---- receiving

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                await self._reads.wait()
                for frame in await self.wire.incoming.receive():
                    self._receive(frame)
        except (trio.EndOfChannel, trio.ClosedResourceError):
            self.gone = True
            self._tell()

    def _receive(self, frame: bytes) -> None:
        assert len(frame) < 2**20, "a message under 1 MiB"
        message: Json = msgspec.json.decode(frame)
        self.messages.append(message)
        match message.get("method"):
            case None:
                self._answered(message)
            case "session/request_permission":
                self._asked(message)
            case "$/cancel_request":
                self.retracted.append(message["params"]["requestId"])
            case _:
                pass
        self._tell()

    def _answered(self, message: Json) -> None:
        if message["id"] is None:
            return
        reply = self._replies.pop(message["id"])  # a KeyError is a second answer to one request
        reply.message, reply.place = message, len(self.messages) - 1
        reply.arrived.set()

    def _asked(self, message: Json) -> None:
        params = message["params"]
        options = [option["optionId"] for option in params["options"]]
        call = params["toolCall"]["toolCallId"]
        self.questions.append(Question(message["id"], params["sessionId"], call, options))

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def news(self) -> None:
        """Wait until something more has come."""
        await self._news.wait()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what was received makes it true."""
        with trio.fail_after(PATIENCE):
            while not holds():
                await self._news.wait()

    async def request(self, method: str, number: int = 1) -> Json:
        """The `number`-th request of a method that this client was sent."""

        def sent() -> list[Json]:
            return [m for m in self.messages if m.get("method") == method and "id" in m]

        await self.until(lambda: len(sent()) >= number)
        return sent()[number - 1]

    async def question(self, number: int = 1) -> Question:
        """The `number`-th question this client was asked."""
        await self.until(lambda: len(self.questions) >= number)
        return self.questions[number - 1]

    def stop_reading(self) -> None:
        """Leave everything in the transport until `read_on`."""
        self._reads = trio.Event()

    def read_on(self) -> None:
        self._reads.set()

    def leave(self) -> None:
        """Go without a word."""
        self.wire.close()

    # ---- what was told

    def of_session(self, session: str) -> list[Json]:
        """The updates and entries of a session, in the order they came."""
        methods = ("session/update", "_moorage/session/entry")
        return [
            message["params"]
            for message in self.messages
            if message.get("method") in methods and message["params"]["sessionId"] == session
        ]

    def seqs(self, session: str) -> list[int]:
        """The numbers of the entries this client was sent, in the order they came."""
        numbers = [_seq(params) for params in self.of_session(session)]
        return [number for number in numbers if number is not None]

    def text(self, session: str) -> str:
        """What the agent said, as this client has it."""
        return "".join(
            params["update"]["content"]["text"]
            for params in self.of_session(session)
            if params.get("update", {}).get("sessionUpdate") == "agent_message_chunk"
        )

    def kinds(self, session: str) -> list[str]:
        """The entries by kind; updates by the protocol's name of theirs."""
        return [
            params["update"]["sessionUpdate"] if "update" in params else params["kind"]
            for params in self.of_session(session)
            if _seq(params) is not None
        ]

    def of_kind(self, kind: str) -> list[Json]:
        """The entries of that kind, of all sessions."""
        return [
            message["params"]
            for message in self.messages
            if message.get("method") == "_moorage/session/entry"
            and message["params"]["kind"] == kind
        ]

    def verdicts(self, session: str) -> dict[int, Json]:
        """The verdicts this client was told, by generation."""
        told = [p for p in self.of_session(session) if p.get("kind") == "verdict"]
        assert len({p["generation"] for p in told}) == len(told), "one verdict a turn"
        return {params["generation"]: params for params in told}

    # ---- sending

    def start(self, method: str, params: Json, shape: type[R]) -> Reply[R]:
        """Send a request."""
        frame, reply = self.frame(method, params, shape)
        self.post(frame)
        return reply

    def frame(self, method: str, params: Json, shape: type[R]) -> tuple[bytes, Reply[R]]:
        """A request that is not sent yet."""
        reply = Reply(self._next_id(), shape)
        return self._opened(reply, method, params), reply

    def _next_id(self) -> int:
        self._count += 1
        return self._count

    def _opened(self, reply: Reply[Any], method: str, params: Json) -> bytes:
        self._replies[reply.id] = reply
        self.asked[reply.id] = method
        return jsonrpc.encode_request(reply.id, method, params)

    def post(self, *frames: bytes | Oversize) -> None:
        """Send frames that the daemon gets in one read."""
        self.wire.outgoing.send_nowait(frames)

    def notify(self, method: str, params: Json) -> None:
        self.post(jsonrpc.encode_notification(method, params))

    async def call(self, method: str, params: Json, shape: type[R]) -> R:
        """Send a request and wait for the answer."""
        return await self.start(method, params, shape).result()

    # ---- the methods, as a client calls them

    async def initialize(self, hello: Json | None, capabilities: Json | None = None) -> None:
        params: Json = {"protocolVersion": 1, "clientCapabilities": capabilities or {}}
        if hello is not None:
            params["_meta"] = {"moorage": hello}
        answer = await self.call("initialize", params, dict[str, Any])
        if hello is not None:
            welcome = msgspec.convert(answer["_meta"]["moorage"], Welcome)
            self.tui, self.secret = welcome.tui_id, welcome.tui_secret

    async def new(self, cwd: str = "/work", **wish: Any) -> str:
        """A new session; gives its id."""
        return (await self.start_new(cwd, **wish).result()).session_id

    def start_new(self, cwd: str = "/work", **wish: Any) -> Reply[NewResult]:
        params: Json = {"cwd": cwd, "mcpServers": [], "_meta": {"moorage": wish}}
        return self.start("session/new", params, NewResult)

    def prompt(self, session: str, text: str = "hello", **wish: Any) -> PromptReply:
        frame, reply = self.prompt_frame(session, text, **wish)
        self.post(frame)
        return reply

    def prompt_frame(
        self, session: str, text: str = "hello", **wish: Any
    ) -> tuple[bytes, PromptReply]:
        """A prompt that is not sent yet."""
        reply = PromptReply(self._next_id(), PromptResult)
        params = prompt_params(session, text, **wish)
        return self._opened(reply, "session/prompt", params), reply

    def start_cancel(self, session: str, **wish: Any) -> Reply[CancelResult]:
        return self.start("session/cancel", cancel_params(session, **wish), CancelResult)

    async def cancel(self, session: str, **wish: Any) -> CancelResult:
        return await self.start_cancel(session, **wish).result()

    def start_kill(self, session: str, reason: str | None = None) -> Reply[KillResult]:
        params = {"sessionId": session, "reason": reason}
        return self.start("session/kill", params, KillResult)

    async def kill(self, session: str, reason: str | None = None) -> KillResult:
        return await self.start_kill(session, reason).result()

    def start_close(self, session: str) -> Reply[Empty]:
        return self.start("session/close", {"sessionId": session}, Empty)

    async def close(self, session: str) -> None:
        await self.start_close(session).result()

    async def delete(self, session: str) -> None:
        await self.call("session/delete", {"sessionId": session}, Empty)

    async def configure(self, session: str, **overrides: Any) -> ConfigureResult:
        params = {"sessionId": session, "overrides": overrides}
        return await self.call("session/configure", params, ConfigureResult)

    def start_load(self, session: str) -> Reply[LoadResult]:
        params: Json = {"sessionId": session, "cwd": "/elsewhere", "mcpServers": []}
        return self.start("session/load", params, LoadResult)

    async def load(self, session: str) -> LoadResult:
        return await self.start_load(session).result()

    async def resume(self, session: str) -> LoadResult:
        params: Json = {"sessionId": session, "cwd": "/elsewhere", "mcpServers": []}
        return await self.call("session/resume", params, LoadResult)

    async def attach(self, session: str, **wish: Any) -> Snapshot:
        params = {"sessionId": session, **wish}
        return await self.call("_moorage/session/attach", params, Snapshot)

    async def detach(self, session: str) -> None:
        await self.call("_moorage/session/detach", {"sessionId": session}, Empty)

    async def entries(self, session: str, after: int = 0, **wish: Any) -> list[Json]:
        """The stored entries, all pages of them."""
        found: list[Json] = []
        while True:
            params = {"sessionId": session, "after": after, **wish}
            page = await self.call("_moorage/session/entries", params, EntriesResult)
            found += [msgspec.json.decode(entry) for entry in page.entries]
            if page.next is None:
                return found
            after = page.next

    async def turns(self, session: str) -> list[TurnRecord]:
        params = {"sessionId": session}
        return (await self.call("_moorage/session/turns", params, TurnsResult)).turns

    async def withdraw(self, session: str, generation: int) -> bool:
        params = {"sessionId": session, "generation": generation}
        result = await self.call("_moorage/session/withdraw", params, WithdrawResult)
        return result.withdrawn

    async def listed(self) -> list[str]:
        """The ids that `session/list` gives."""
        result = await self.call("session/list", {}, ListResult)
        return [row.session_id for row in result.sessions]

    async def live(self) -> LiveResult:
        return await self.call("_moorage/session/live", {}, LiveResult)

    async def status(self) -> StatusResult:
        return await self.call("_moorage/status", {}, StatusResult)

    # ---- questions

    def choose(self, question: Question, option: str = "allow") -> None:
        """Answer with an option."""
        self.answer(question, {"outcome": {"outcome": "selected", "optionId": option}})

    def dismiss(self, question: Question) -> None:
        """Answer `cancelled`."""
        self.answer(question, {"outcome": {"outcome": "cancelled"}})

    def answer(self, question: Question, result: Json) -> None:
        self.post(jsonrpc.encode_result(question.id, result))

    def reply(self, request: Json, result: Json | RpcError) -> None:
        """Answer a request of the daemon."""
        if isinstance(result, RpcError):
            self.post(jsonrpc.encode_error(request["id"], result))
        else:
            self.post(jsonrpc.encode_result(request["id"], result))

    async def respond(self, session: str, call: str, option: str = "allow") -> RespondOutcome:
        params = {"sessionId": session, "toolCallId": call, "optionId": option}
        return (await self.call("_moorage/permission/respond", params, RespondResult)).outcome


def _as(value: object, shape: type[R]) -> R:
    return msgspec.json.decode(msgspec.json.encode(value), type=shape)


def prompt_params(session: str, text: str = "hello", **wish: Any) -> Json:
    return {
        "sessionId": session,
        "prompt": [{"type": "text", "text": text}],
        **({"_meta": {"moorage": wish}} if wish else {}),
    }


def cancel_params(session: str, **wish: Any) -> Json:
    return {"sessionId": session, **({"_meta": {"moorage": wish}} if wish else {})}


def _seq(params: Json) -> int | None:
    """The number of the entry a message was made from; None for what is no entry."""
    if "seq" in params:
        number: int = params["seq"]
        return number
    marked: int | None = params.get("_meta", {}).get("moorage", {}).get("seq")
    return marked
