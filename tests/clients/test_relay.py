"""The bridge as an editor sees it: a child process that is always there and always answers."""

import json
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio

from tests.clients.fake_daemon import FakeDaemon, Message, Visitor, open_fake_daemon
from tests.clients.stub_daemon import ANSWERS, FAILS, environment_with, starts


BRIDGE = "import sys; from moorage_clients.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(eq=False)
class Editor:
    """The editor's ends of its bridge's pipes."""

    bridge: trio.Process
    _buffer: bytes = b""

    async def send(self, **message: Any) -> None:
        await self.send_raw(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def send_raw(self, data: bytes) -> None:
        assert self.bridge.stdin is not None
        await self.bridge.stdin.send_all(data)

    async def receive(self) -> Message:
        assert self.bridge.stdout is not None
        while b"\n" not in self._buffer:
            data = await self.bridge.stdout.receive_some()
            assert data, "the bridge closed its stdout"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        found: Message = json.loads(line)
        return found

    async def ask(self, request_id: int, method: str) -> Message:
        await self.send(id=request_id, method=method, params={"protocolVersion": 1})
        return await self.receive()

    async def close_stdin(self) -> None:
        assert self.bridge.stdin is not None
        await self.bridge.stdin.aclose()

    async def close_stdout(self) -> None:
        assert self.bridge.stdout is not None
        await self.bridge.stdout.aclose()

    async def leave(self) -> int:
        """Close stdin as an editor does that ends; the bridge's exit code."""
        await self.close_stdin()
        with trio.fail_after(60):
            return await self.bridge.wait()


@asynccontextmanager
async def open_editor(
    state_dir: Path, env: dict[str, str] | None = None
) -> AsyncGenerator[Editor, None]:
    """Start a bridge; in the end it must not have said a word on stderr."""
    command = [sys.executable, "-c", BRIDGE, "--state-dir", str(state_dir), "acp"]
    bridge: trio.Process = await trio.lowlevel.open_process(
        command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env
    )
    try:
        yield Editor(bridge)
    finally:
        said = await _end(bridge)
    assert said == b""


async def _end(bridge: trio.Process) -> bytes:
    """Kill a bridge and give what it said on stderr."""
    said = b""
    with trio.move_on_after(5, shield=True):
        bridge.kill()
        await bridge.wait()
        assert bridge.stderr is not None
        said = bytes(await bridge.stderr.receive_some())
        for stream in (bridge.stdin, bridge.stdout, bridge.stderr):
            if stream is not None:
                await stream.aclose()
    return said


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with open_fake_daemon(tmp_path / "state") as fake:
        yield fake


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def meet(daemon: FakeDaemon, editor: Editor) -> Visitor:
    """Let an editor shake hands with the daemon."""
    await editor.send(id=0, method="initialize", params={"protocolVersion": 1})
    visitor = await daemon.accept()
    await visitor.greet()
    assert (await editor.receive())["result"]["protocolVersion"] == 1
    return visitor


async def test_requests_and_answers_pass(daemon: FakeDaemon) -> None:
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor:
            visitor = await meet(daemon, editor)
            await editor.send(id="a", method="session/list", params={"cwd": "/ü"})

            request = await visitor.receive()
            await visitor.answer(request, {"sessions": []})

            assert request["params"] == {"cwd": "/ü"}
            assert await editor.receive() == {
                "jsonrpc": "2.0",
                "id": "a",
                "result": {"sessions": []},
            }


async def test_editor_that_frames_by_headers_is_answered_likewise(daemon: FakeDaemon) -> None:
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor:
            await editor.send_raw(
                b'Content-Length: 47\r\n\r\n{"jsonrpc":"2.0",\n"id":0,"method":"initialize"}'
            )
            visitor = await daemon.accept()
            await visitor.answer(await visitor.expect("initialize"), {})
            assert editor.bridge.stdout is not None
            said = bytes(await editor.bridge.stdout.receive_some())

    assert said == b'Content-Length: 41\r\n\r\n{"jsonrpc": "2.0", "id": 0, "result": {}}'


async def test_eight_mebibytes_pass_whole_in_both_directions(daemon: FakeDaemon) -> None:
    text = "x" * (8 * 2**20 - 1024)
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor, trio.open_nursery() as nursery:
            visitor = await meet(daemon, editor)
            nursery.start_soon(lambda: editor.send(id=1, method="session/prompt", params=text))
            request = await visitor.receive()
            nursery.start_soon(visitor.answer, request, text)

            assert request["params"] == text
            assert (await editor.receive())["result"] == text


async def test_daemon_that_dies_is_followed_by_one_that_answers_what_it_was_asked(
    state_dir: Path,
) -> None:
    with trio.fail_after(60):
        async with open_fake_daemon(state_dir) as first, open_editor(state_dir) as editor:
            visitor = await meet(first, editor)
            await editor.send(id=1, method="session/prompt", params={"sessionId": "s"})
            prompt = await visitor.expect("session/prompt")
            await visitor.send_raw(b'{"jsonrpc":"2.0","id":1,"resu')  # cut in the middle
            await first.listener.aclose()
            await visitor.hang_up()
            await editor.send(id=2, method="session/list")

            async with open_fake_daemon(state_dir) as second:
                visitor = await second.accept()
                greeting = await visitor.greet()
                assert await visitor.receive() == prompt
                listing = await visitor.expect("session/list")
                await visitor.answer(listing, {"sessions": []})
                await visitor.answer(prompt, {"stopReason": "cancelled"})

                assert greeting["params"]["_meta"]["moorage"]["relay"]
                assert [(await editor.receive())["id"] for _ in range(2)] == [2, 1]


async def test_editor_is_the_same_terminal_after_its_own_restart(daemon: FakeDaemon) -> None:
    known: list[Message] = []
    with trio.fail_after(60):
        for _ in range(2):
            async with open_editor(daemon.state_dir) as editor:
                info = {"name": "Zed"}
                await editor.send(id=0, method="initialize", params={"clientInfo": info})
                visitor = await daemon.accept()
                greeting = await visitor.greet(tuiId="me", tuiSecret="hush")
                known.append(greeting["params"]["_meta"]["moorage"])
                assert "hush" not in str(await editor.receive())

    assert "tuiId" not in known[0]
    assert (known[1]["tuiId"], known[1]["tuiSecret"]) == ("me", "hush")
    assert known[0]["instance"] != known[1]["instance"]
    kept = daemon.state_dir / "tui" / "acp-Zed.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_bridge_starts_a_daemon_and_starts_another_when_none_comes_back(
    tmp_path: Path, state_dir: Path
) -> None:
    env = environment_with(tmp_path, ANSWERS)
    with trio.fail_after(60):
        async with open_editor(state_dir, env) as editor:
            await editor.ask(0, "initialize")
            first: int = (await editor.ask(1, "session/list"))["result"]["pid"]
            os.kill(first, signal.SIGKILL)
            second: int = (await editor.ask(2, "session/list"))["result"]["pid"]
            os.kill(second, signal.SIGTERM)

    assert [start["pid"] for start in starts(state_dir)] == [first, second]


async def test_daemon_that_cannot_start_is_an_answer_and_not_the_end_of_the_bridge(
    tmp_path: Path, state_dir: Path
) -> None:
    env = environment_with(tmp_path, FAILS)
    with trio.fail_after(60):
        async with open_editor(state_dir, env) as editor:
            answers = [await editor.ask(0, "initialize"), await editor.ask(1, "initialize")]

            assert [answer["id"] for answer in answers] == [0, 1]
            for answer in answers:
                assert answer["error"]["code"] == -32603
                assert "unknown key 'stoer'" in answer["error"]["message"]
            assert await editor.leave() == 0


async def test_state_directory_that_others_may_write_is_an_answer_too(state_dir: Path) -> None:
    state_dir.mkdir()
    state_dir.chmod(0o777)
    with trio.fail_after(60):
        async with open_editor(state_dir) as editor:
            answer = await editor.ask(0, "initialize")

    assert "others may write in it" in answer["error"]["message"]


async def test_bridge_leaves_with_its_editor_while_a_turn_runs(daemon: FakeDaemon) -> None:
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor:
            visitor = await meet(daemon, editor)
            await editor.send(id=1, method="session/prompt")
            await visitor.expect("session/prompt")

            assert await editor.leave() == 0


async def test_last_words_of_an_editor_reach_the_daemon(daemon: FakeDaemon) -> None:
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor:
            visitor = await meet(daemon, editor)
            await editor.close_stdout()
            await editor.send(method="session/cancel", params={"sessionId": "s"})

            assert await editor.leave() == 0
            assert (await visitor.receive())["params"] == {"sessionId": "s"}


async def test_answers_still_due_are_waited_for_when_stdin_ends(daemon: FakeDaemon) -> None:
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor:
            await editor.send(id=0, method="initialize")
            await editor.close_stdin()
            await (await daemon.accept()).greet()

            assert (await editor.receive())["id"] == 0
            assert await editor.bridge.wait() == 0


async def test_bridge_outlives_a_daemon_that_hangs_up_on_everybody(daemon: FakeDaemon) -> None:
    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor:
            await editor.send(id=0, method="initialize", params={})
            for _ in range(2):
                visitor = await daemon.accept()
                await visitor.expect("initialize")
                await visitor.hang_up()
            await (await daemon.accept()).greet()

            assert (await editor.receive())["result"]["protocolVersion"] == 1


async def test_editor_that_does_not_read_holds_the_daemon_back_and_can_still_speak(
    daemon: FakeDaemon,
) -> None:
    chunk = b'{"jsonrpc":"2.0","method":"session/update","params":"' + b"x" * 65000 + b'"}\n'
    flood, turns = 512, 1000  # a bridge that read on would have it all after `flood` turns
    is_through = trio.Event()

    async def stream(visitor: Visitor) -> None:
        for _ in range(flood):
            await visitor.send_raw(chunk)
        is_through.set()

    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor, trio.open_nursery() as nursery:
            visitor = await meet(daemon, editor)
            nursery.start_soon(stream, visitor)
            for _ in range(turns):
                await editor.send(method="session/cancel")
                await visitor.expect("session/cancel")

            assert not is_through.is_set()
            for _ in range(flood):
                assert (await editor.receive())["method"] == "session/update"


async def test_daemon_that_does_not_read_holds_the_editor_back(daemon: FakeDaemon) -> None:
    line = json.dumps({"jsonrpc": "2.0", "method": "x", "params": "y" * 65000}).encode() + b"\n"
    flood, turns = 512, 1000
    is_through = trio.Event()

    async def speak(editor: Editor) -> None:
        for _ in range(flood):
            await editor.send_raw(line)
        is_through.set()

    with trio.fail_after(60):
        async with open_editor(daemon.state_dir) as editor, trio.open_nursery() as nursery:
            visitor = await meet(daemon, editor)
            nursery.start_soon(speak, editor)
            for _ in range(turns):
                await visitor.send(method="session/update")
                await editor.receive()

            assert not is_through.is_set()
            for _ in range(flood):
                await visitor.expect("x")


async def test_bridge_loads_nothing_that_an_editor_would_wait_for(daemon: FakeDaemon) -> None:
    heavy = {
        "argparse", "asyncio", "dataclasses", "logging", "msgspec", "pathlib", "platformdirs",
        "subprocess", "trio", "websockets", "moorage_clients.client", "moorage_clients.cli.command",
    }  # fmt: skip
    program = (
        "import sys; from moorage_clients.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    command = [sys.executable, "-I", "-c", program, "acp", "--state-dir", str(daemon.state_dir)]
    with trio.fail_after(60):
        ended = await trio.run_process(command, stdin=b"", capture_stderr=True)

    loaded = set(ended.stderr.decode().split())
    assert "moorage_clients.bridge.relay" in loaded
    assert loaded & heavy == set()
