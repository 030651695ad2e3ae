"""What the client of one connection lends: its files and terminals, as it said in `initialize`.

Every request has a bound and is taken back with `$/cancel_request` when nobody waits for it any
more. Terminals are let go of whatever happens, also one whose making is answered too late; when
the client stops sending, those that are open are let go of first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec
import trio

from moorage_daemon.tools.client import (
    ClientGone,
    ClientRefused,
    ClientSilent,
    ClientUnclear,
    Ended,
    Screen,
)
from moorage_protocol import lenient
from moorage_protocol.acp import (
    ClientCapabilities,
    CreateTerminalParams,
    CreateTerminalResult,
    Empty,
    ReadTextFileParams,
    ReadTextFileResult,
    TerminalExit,
    TerminalOutputResult,
    TerminalParams,
    WriteTextFileParams,
)
from moorage_protocol.errors import InvalidParams, MethodNotFound, RpcError


R = TypeVar("R")

PATIENCE = 30.0  # seconds for an answer: the editor may be asking its user
NOTHING = ClientCapabilities()
SCREEN = 64 * 2**10  # bytes of output that a terminal keeps, as much as of a command of ours


@dataclass(eq=False)
class Call:
    """A request to the client. `late` gets a result that nobody waits for any more."""

    late: Callable[[msgspec.Raw], None] | None = None
    result: msgspec.Raw | RpcError | None = None  # None once it is `done`: the client left
    done: trio.Event = field(default_factory=trio.Event)
    is_given_up: bool = False

    def settle(self, result: msgspec.Raw | RpcError | None) -> None:
        """It is answered, or never will be."""
        self.result = result
        self.done.set()
        if self.is_given_up:
            self.too_late()

    def too_late(self) -> None:
        """Nobody took the result, if there is one."""
        if self.late is not None and isinstance(self.result, msgspec.Raw):
            self.late(self.result)


class Requests(Protocol):
    """How a connection carries requests of ours."""

    def open_request(self, method: str, params: msgspec.Struct, call: Call) -> int:
        """Send a request; its answer settles the call. Gives the request's id."""
        ...

    def take_back(self, request: int, *, still_listening: bool) -> None:
        """Tell the client that a request is given up."""
        ...


@dataclass(eq=False)
class Lending:
    """One client's part; `capabilities` are what it has said of itself."""

    requests: Requests
    capabilities: ClientCapabilities = NOTHING
    is_over: bool = False
    terminals: "set[LentTerminal]" = field(default_factory=set["LentTerminal"])
    _open: dict[Call, int] = field(default_factory=dict[Call, int])

    def start(
        self,
        method: str,
        params: msgspec.Struct,
        late: Callable[[msgspec.Raw], None] | None = None,
    ) -> Call:
        """Send a request, at once."""
        if self.is_over:
            raise ClientGone
        call = Call(late)
        self._open[call] = self.requests.open_request(method, params, call)
        return call

    def tell(self, method: str, params: msgspec.Struct) -> None:
        """Send a request whose answer does not matter."""
        self.requests.open_request(method, params, Call(is_given_up=True))

    async def ask(self, method: str, params: msgspec.Struct, shape: type[R]) -> R:
        """Send a request and wait for what it gives; raises `ClientFailed`."""
        return await self.outcome(self.start(method, params), shape)

    async def outcome(self, call: Call, shape: type[R]) -> R:
        """Wait for the answer to a request; raises `ClientFailed`."""
        try:
            with trio.move_on_after(PATIENCE):
                await call.done.wait()
        except trio.Cancelled:
            self.give_up(call)
            raise
        if not call.done.is_set():
            self.give_up(call)
            raise ClientSilent
        return _read(call, shape)

    def give_up(self, call: Call) -> None:
        """Wait for it no longer: it is taken back, or was answered in the last moment."""
        request = self._open.pop(call, None)
        if call.done.is_set():
            call.too_late()
        elif request is not None:
            call.is_given_up = True
            self.requests.take_back(request, still_listening=call.late is not None)

    def settle(self, call: Call, result: msgspec.Raw | RpcError) -> None:
        """The client has answered."""
        self._open.pop(call, None)
        call.settle(result)

    def end(self) -> None:
        """The client sends no more: nobody is to wait for it."""
        for terminal in [*self.terminals]:
            terminal.kill()
        self.is_over = True
        for call in [*self._open]:
            call.settle(None)
        self._open.clear()


def _read(call: Call, shape: type[R]) -> R:
    match call.result:
        case None:
            raise ClientGone
        case RpcError():
            raise ClientRefused(is_unserved=isinstance(call.result, MethodNotFound))
        case raw:
            try:
                return lenient.decode(b"{}" if bytes(raw) == b"null" else raw, shape)
            except InvalidParams as error:
                raise ClientUnclear from error


class LentToSession(msgspec.Struct, frozen=True):
    """The same for one session: the port that tools know."""

    lending: Lending
    session_id: str

    @property
    def reads_files(self) -> bool:
        """Whether it has said that it reads files, and is there."""
        return self.lending.capabilities.fs.read_text_file and not self.lending.is_over

    @property
    def writes_files(self) -> bool:
        """Whether it has said that it writes files, and is there."""
        return self.lending.capabilities.fs.write_text_file and not self.lending.is_over

    @property
    def has_terminals(self) -> bool:
        """Whether it has said that it has terminals, and is there."""
        return self.lending.capabilities.terminal and not self.lending.is_over

    async def read_text(self, path: str) -> str:
        """The text of a file as its user sees it."""
        params = ReadTextFileParams(session_id=self.session_id, path=path)
        found = await self.lending.ask("fs/read_text_file", params, ReadTextFileResult)
        return found.content

    async def write_text(self, path: str, text: str) -> None:
        """Replace a file's text."""
        params = WriteTextFileParams(session_id=self.session_id, path=path, content=text)
        await self.lending.ask("fs/write_text_file", params, Empty)

    def terminal(self, command: str, arguments: Sequence[str], cwd: str) -> "LentTerminal":
        """A terminal for a command that is not started yet."""
        params = CreateTerminalParams(
            session_id=self.session_id,
            command=command,
            args=list(arguments),
            cwd=cwd,
            output_byte_limit=SCREEN,
        )
        return LentTerminal(self.lending, params)


@dataclass(eq=False)
class LentTerminal:
    """One terminal of the client; `id` is set when it has made it."""

    lending: Lending
    params: CreateTerminalParams
    id: str | None = None
    is_killed: bool = False
    is_released: bool = False
    _wait: Call | None = None

    @property
    def pid(self) -> None:
        """Its processes are the client's."""

    async def start(self) -> None:
        """Have it made, and the command started in it."""
        self.lending.terminals.add(self)
        call = self.lending.start("terminal/create", self.params, late=self._made_too_late)
        made = await self.lending.outcome(call, CreateTerminalResult)
        self.id = made.terminal_id
        if self.is_killed:
            self._release()
            raise ClientGone

    def _made_too_late(self, result: msgspec.Raw) -> None:
        try:
            self.id = lenient.decode(result, CreateTerminalResult).terminal_id
        except InvalidParams:
            return
        self._release()

    async def screen(self) -> Screen:
        """What there is to see now."""
        found = await self.lending.ask("terminal/output", self._named(), TerminalOutputResult)
        status = found.exit_status
        return Screen(found.output, found.truncated, _ended(status) if status else None)

    async def ended(self, seconds: float) -> Ended | None:
        """Wait so long for the end; the client is asked once, however often this is called."""
        if self._wait is None:
            self._wait = self.lending.start("terminal/wait_for_exit", self._named())
        with trio.move_on_after(seconds):
            await self._wait.done.wait()
        if not self._wait.done.is_set():
            return None
        return _ended(_read(self._wait, TerminalExit))

    def kill(self) -> None:
        """End the command, and let go of the terminal."""
        if self.is_killed:
            return
        self.is_killed = True
        self.lending.terminals.discard(self)
        if self._wait is not None:
            self.lending.give_up(self._wait)
        if self.id is not None:
            self._release()

    def _release(self) -> None:
        if self.is_released:
            return
        self.is_released = True
        if self._wait is None or not self._wait.done.is_set():
            self.lending.tell("terminal/kill", self._named())
        self.lending.tell("terminal/release", self._named())

    def _named(self) -> TerminalParams:
        assert self.id is not None, "a terminal is started first"
        return TerminalParams(session_id=self.params.session_id, terminal_id=self.id)


def _ended(status: TerminalExit) -> Ended:
    return Ended(status.exit_code, status.signal)
