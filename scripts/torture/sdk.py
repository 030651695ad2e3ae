"""An editor made of the Agent Client Protocol's Python SDK, in a process of its own.

It is the one that the tests drive; here everything it hears is kept, to be judged in the end. It
allows what it is asked where `allows` says so, and else leaves the question open.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import trio

from scripts.torture.report import CannotRun
from tests.e2e.editors import DRIVER


Json = dict[str, Any]

READ_BYTES = 2**18
EXPECTED = {"session/update", "session/request_permission", "$/cancel_request"}


@dataclass(eq=False)
class SdkEditor:
    """`told` is all that the driver said, in its order."""

    process: trio.Process
    allows: Callable[[], bool] = lambda: True
    told: list[Json] = field(default_factory=list[Json])
    asked: int = 0  # requests so far; the SDK numbers them from 0
    _results: dict[int, Json] = field(default_factory=dict[int, Json])
    _options: dict[str, str] = field(default_factory=dict[str, str])
    _news: trio.Event = field(default_factory=trio.Event)
    _gone: bool = False
    _may_write: trio.Lock = field(default_factory=trio.Lock)

    # ---- the driver

    async def run(self) -> None:
        """Read what the driver says until it ends."""
        assert self.process.stdout is not None
        buffer = bytearray()
        async for data in self.process.stdout:
            buffer += data
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                await self._take(json.loads(line))
            self._tell()
        self._gone = True
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def _take(self, line: Json) -> None:
        self.told.append(line)
        if "id" in line:
            self._results[line["id"]] = line
        elif line.get("heard", {}).get("method") == "session/request_permission":
            params = line["heard"]["params"]
            [option] = [o["optionId"] for o in params["options"] if o["kind"] == "allow_once"]
            self._options[params["toolCall"]["toolCallId"]] = option
        elif "asked" in line and self.allows():
            await self._send({"answer": line["asked"], "option": self._options[line["asked"]]})

    async def _send(self, order: Json) -> None:
        assert self.process.stdin is not None
        async with self._may_write:
            await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what the driver said makes it true."""
        while not holds():
            assert not self._gone, "the editor is gone"
            await self._news.wait()

    # ---- doing

    async def start(self, do: str, **given: Any) -> int:
        """Begin something; gives its number."""
        self.asked += 1
        await self._send({"id": self.asked, "do": do, "with": given})
        return self.asked

    async def wait(self, number: int) -> Json:
        """What came of it: `{result}` or `{error}`."""
        await self.until(lambda: number in self._results)
        return self._results[number]

    async def call(self, do: str, **given: Any) -> Any:
        """Begin something and wait for its result."""
        return (await self.wait(await self.start(do, **given)))["result"]

    async def leave(self) -> Json:
        """Go; gives how the bridge ended."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await self.until(lambda: any("left" in line for line in self.told[-20:]))
        return next(line for line in reversed(self.told) if "left" in line)

    # ---- what it has noticed

    def updates(self, session: str) -> list[Json]:
        """What it was told of a session's log."""
        heard = (line["heard"] for line in self.told if "heard" in line)
        params = [m["params"] for m in heard if m.get("method") == "session/update"]
        return [p for p in params if p["sessionId"] == session and "_meta" in p]

    def problems(self) -> list[str]:
        """Everything it heard that is more than its updates and answers, or no good message."""
        wrong: list[str] = []
        answers: Counter[object] = Counter()
        for line in self.told:
            message = line.get("heard", {})
            if "said" in line or line.get("problem") or ("heard" in line and not line["model"]):
                wrong.append(f"no message of the protocol: {line}")
            if "error" in message or message.get("method", "session/update") not in EXPECTED:
                wrong.append(f"not for an editor: {message}")
            if "heard" in line and "method" not in message:
                answers[message["id"]] += 1
        wrong += [f"{answers[n]} answers to {n}" for n in range(self.asked) if answers[n] != 1]
        return wrong


@asynccontextmanager
async def open_sdk_editor(command: Sequence[str]) -> AsyncGenerator[SdkEditor]:
    """Start an editor whose agent is that command; it has said who it is."""
    if find_spec("acp") is None:
        raise CannotRun("the package agent-client-protocol is not installed")
    how = json.dumps({"command": [sys.executable, *command], "env": {}})
    process: trio.Process = await trio.lowlevel.open_process(
        [sys.executable, str(DRIVER), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # tracebacks of the SDK for questions that are withdrawn
    )
    try:
        async with trio.open_nursery() as nursery:
            editor = SdkEditor(process)
            nursery.start_soon(editor.run)
            await editor.until(lambda: {"ready": True} in editor.told)
            await editor.call("initialize", protocol_version=1)
            yield editor
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
