"""What a client lends: every wait has a bound, and every terminal is let go of."""

from dataclasses import dataclass, field

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from moorage_daemon.connection.lending import PATIENCE, Call, Lending, LentToSession
from moorage_daemon.tools.client import (
    ClientFailed,
    ClientGone,
    ClientRefused,
    ClientSilent,
    ClientUnclear,
    Ended,
    Screen,
    Terminal,
)
from moorage_protocol.acp import ClientCapabilities, FileSystemCapabilities
from moorage_protocol.errors import InternalError, MethodNotFound, RequestCancelled
from tests.daemon.harness import simulated
from tests.daemon.twin import Json


pytestmark = pytest.mark.trio(run=simulated)

ALL = ClientCapabilities(
    fs=FileSystemCapabilities(read_text_file=True, write_text_file=True), terminal=True
)


@dataclass(eq=False)
class Sent:
    """A request as it went to the client."""

    method: str
    params: Json
    call: Call


@dataclass(eq=False)
class Wire:
    """What a connection does, and what the client answers."""

    sent: list[Sent] = field(default_factory=list[Sent])
    taken_back: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    lending: Lending = field(init=False)

    def __post_init__(self) -> None:
        self.lending = Lending(self, ALL)

    def open_request(self, method: str, params: msgspec.Struct, call: Call) -> int:
        self.sent.append(Sent(method, msgspec.to_builtins(params), call))
        return len(self.sent) - 1

    def take_back(self, request: int, *, still_listening: bool) -> None:
        self.taken_back.append((self.sent[request].method, still_listening))

    def answer(self, method: str, result: object = None) -> None:
        """Answer the last request of that method: with an error if it is one."""
        call = [sent.call for sent in self.sent if sent.method == method][-1]
        if not isinstance(result, Exception):
            result = msgspec.Raw(msgspec.json.encode(result))
        self.lending.settle(call, result)  # type: ignore[arg-type]

    @property
    def methods(self) -> list[str]:
        return [sent.method for sent in self.sent]

    @property
    def client(self) -> LentToSession:
        return LentToSession(self.lending, "s")


@pytest.fixture
def wire() -> Wire:
    return Wire()


# ---- files


async def test_files_are_read_and_written_under_the_sessions_name(
    wire: Wire, nursery: trio.Nursery
) -> None:
    texts: list[str] = []

    async def use() -> None:
        texts.append(await wire.client.read_text("/w/a"))
        await wire.client.write_text("/w/b", "text")
        texts.append("written")

    nursery.start_soon(use)
    await wait_all_tasks_blocked()
    wire.answer("fs/read_text_file", {"content": "found", "_meta": {}})
    await wait_all_tasks_blocked()
    wire.answer("fs/write_text_file")  # null, as some clients answer
    await wait_all_tasks_blocked()

    assert texts == ["found", "written"]
    assert [(sent.method, sent.params) for sent in wire.sent] == [
        ("fs/read_text_file", {"sessionId": "s", "path": "/w/a"}),
        ("fs/write_text_file", {"sessionId": "s", "path": "/w/b", "content": "text"}),
    ]
    assert wire.taken_back == []


async def test_client_that_never_answers_is_not_waited_for_long(wire: Wire) -> None:
    started = trio.current_time()

    with pytest.raises(ClientSilent):
        await wire.client.read_text("/w/a")

    assert trio.current_time() - started == PATIENCE
    assert wire.taken_back == [("fs/read_text_file", False)]


async def test_request_that_nobody_waits_for_is_taken_back(wire: Wire) -> None:
    with trio.move_on_after(1):
        await wire.client.write_text("/w/a", "text")

    assert wire.taken_back == [("fs/write_text_file", False)]


@pytest.mark.parametrize(
    ("answer", "is_unserved"),
    [
        (InternalError("no"), False),
        (RequestCancelled(), False),
        (MethodNotFound(), True),
    ],
)
async def test_error_is_a_refusal(
    wire: Wire, nursery: trio.Nursery, answer: object, is_unserved: bool
) -> None:
    caught: list[ClientRefused] = []

    async def use() -> None:
        try:
            await wire.client.read_text("/w/a")
        except ClientRefused as refusal:
            caught.append(refusal)

    nursery.start_soon(use)
    await wait_all_tasks_blocked()
    wire.answer("fs/read_text_file", answer)
    await wait_all_tasks_blocked()

    assert [refusal.is_unserved for refusal in caught] == [is_unserved]


@pytest.mark.parametrize("answer", [{"content": 7}, {}, []])
async def test_what_is_no_answer_says_nothing_of_what_was_done(
    wire: Wire, nursery: trio.Nursery, answer: object
) -> None:
    caught: list[ClientFailed] = []

    async def use() -> None:
        try:
            await wire.client.read_text("/w/a")
        except ClientFailed as failure:
            caught.append(failure)

    nursery.start_soon(use)
    await wait_all_tasks_blocked()
    wire.answer("fs/read_text_file", answer)
    await wait_all_tasks_blocked()

    assert [type(failure) for failure in caught] == [ClientUnclear]


async def test_client_that_leaves_is_waited_for_no_longer_and_lends_no_more(
    wire: Wire, nursery: trio.Nursery
) -> None:
    ends: list[str] = []

    async def use() -> None:
        try:
            await wire.client.read_text("/w/a")
        except ClientGone:
            ends.append("gone")

    client = wire.client
    assert (client.reads_files, client.writes_files, client.has_terminals) == (True,) * 3
    nursery.start_soon(use)
    await wait_all_tasks_blocked()
    wire.lending.end()
    await wait_all_tasks_blocked()

    assert ends == ["gone"]
    assert (client.reads_files, client.writes_files, client.has_terminals) == (False,) * 3
    with pytest.raises(ClientGone):
        await client.read_text("/w/a")
    assert wire.methods == ["fs/read_text_file"]


# ---- terminals


def released(wire: Wire, terminal: str = "t") -> list[str]:
    """How a terminal was let go of."""
    ends = [sent for sent in wire.sent if sent.method in ("terminal/kill", "terminal/release")]
    assert all(sent.params == {"sessionId": "s", "terminalId": terminal} for sent in ends)
    return [sent.method for sent in ends]


KILLED = ["terminal/kill", "terminal/release"]


@dataclass(eq=False)
class User:
    """Whoever uses a terminal, as tools do: in the end it is killed."""

    wire: Wire
    terminal: Terminal = field(init=False)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    seen: list[Screen | Ended | None] = field(default_factory=list[Screen | Ended | None])
    failed: ClientFailed | None = None

    def __post_init__(self) -> None:
        self.terminal = self.wire.client.terminal("sh", ["-c", "true"], "/w")

    async def run(self) -> None:
        with self.scope:
            try:
                await self.terminal.start()
                while True:
                    ended = await self.terminal.ended(1)
                    self.seen.append(await self.terminal.screen())
                    if ended is not None:
                        self.seen.append(ended)
                        return
            except ClientFailed as failure:
                self.failed = failure
            finally:
                self.terminal.kill()


@pytest.fixture
async def user(wire: Wire, nursery: trio.Nursery) -> User:
    user = User(wire)
    nursery.start_soon(user.run)
    await wait_all_tasks_blocked()
    return user


async def test_command_is_followed_to_its_end_and_its_terminal_released(
    wire: Wire, user: User
) -> None:
    wire.answer("terminal/create", {"terminalId": "t"})
    await trio.sleep(1.5)
    wire.answer("terminal/output", {"output": "half", "truncated": False})
    await wait_all_tasks_blocked()
    wire.answer("terminal/wait_for_exit", {"exitCode": 3, "signal": None})
    await wait_all_tasks_blocked()
    wire.answer("terminal/output", {"output": "whole", "truncated": True, "exitStatus": None})
    await wait_all_tasks_blocked()

    assert user.seen == [Screen("half"), Screen("whole", is_cut=True), Ended(3)]
    assert released(wire) == ["terminal/release"]
    assert wire.sent[0].params == {
        "sessionId": "s",
        "command": "sh",
        "args": ["-c", "true"],
        "cwd": "/w",
        "outputByteLimit": 65536,
    }
    assert wire.methods.count("terminal/wait_for_exit") == 1


async def test_terminal_of_a_cancelled_user_is_killed(wire: Wire, user: User) -> None:
    wire.answer("terminal/create", {"terminalId": "t"})
    await wait_all_tasks_blocked()

    user.scope.cancel()
    await wait_all_tasks_blocked()

    assert released(wire) == KILLED
    assert wire.taken_back == [("terminal/wait_for_exit", False)]


async def test_terminal_that_is_made_after_its_user_was_cancelled_is_killed(
    wire: Wire, user: User
) -> None:
    user.scope.cancel()
    await wait_all_tasks_blocked()
    assert wire.taken_back == [("terminal/create", True)]
    assert released(wire) == []

    wire.answer("terminal/create", {"terminalId": "t"})

    assert released(wire) == KILLED


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_terminal_that_is_made_in_the_tick_of_the_cancel_is_killed(
    wire: Wire, user: User, cancelled_first: bool
) -> None:
    if cancelled_first:
        user.scope.cancel()
    wire.answer("terminal/create", {"terminalId": "t"})
    user.scope.cancel()
    await wait_all_tasks_blocked()

    assert released(wire) == KILLED


async def test_terminal_that_took_too_long_to_make_is_killed(wire: Wire, user: User) -> None:
    await trio.sleep(PATIENCE + 1)
    assert isinstance(user.failed, ClientSilent)

    wire.answer("terminal/create", {"terminalId": "t"})

    assert released(wire) == KILLED


async def test_terminal_that_was_refused_is_none(wire: Wire, user: User) -> None:
    wire.answer("terminal/create", InternalError())
    await wait_all_tasks_blocked()

    assert isinstance(user.failed, ClientRefused)
    assert released(wire) == []


async def test_killing_needs_no_checkpoint_of_its_user(wire: Wire, user: User) -> None:
    """A session is killed in one tick, whatever its agent does."""
    wire.answer("terminal/create", {"terminalId": "t"})
    await wait_all_tasks_blocked()

    user.terminal.kill()

    assert released(wire) == KILLED
    user.terminal.kill()
    assert released(wire) == KILLED


async def test_killing_before_it_is_made_kills_it_when_it_is(wire: Wire, user: User) -> None:
    user.terminal.kill()

    wire.answer("terminal/create", {"terminalId": "t"})
    await wait_all_tasks_blocked()

    assert released(wire) == KILLED
    assert isinstance(user.failed, ClientGone)


async def test_client_that_stops_sending_is_told_to_let_go_first(wire: Wire, user: User) -> None:
    wire.answer("terminal/create", {"terminalId": "t"})
    await wait_all_tasks_blocked()

    wire.lending.end()

    assert released(wire) == KILLED
    await trio.sleep(2)
    assert isinstance(user.failed, ClientGone)


async def test_client_that_shows_nothing_any_more_is_found_out(wire: Wire, user: User) -> None:
    """A command may be silent for hours; its client may not."""
    wire.answer("terminal/create", {"terminalId": "t"})

    await trio.sleep(1 + PATIENCE + 1)

    assert isinstance(user.failed, ClientSilent)
    assert released(wire) == KILLED
