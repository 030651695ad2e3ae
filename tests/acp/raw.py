"""A client that sends any bytes, under any id, and shows all that comes back."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from tests.daemon.twin import PATIENCE, Json, Wire


@dataclass(eq=False)
class RawClient:
    """`messages` is all that came, in its order."""

    wire: Wire
    messages: list[Json] = field(default_factory=list[Json])
    _asked: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                self.messages += map(msgspec.json.decode, await self.wire.incoming.receive())
                news, self._news = self._news, trio.Event()
                news.set()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            pass

    def send(self, *frames: bytes | Json) -> None:
        """Send frames that the daemon gets in one read."""
        self.wire.outgoing.send_nowait(
            [
                frame
                if isinstance(frame, bytes)
                else msgspec.json.encode({"jsonrpc": "2.0", **frame})
                for frame in frames
            ]
        )

    async def answers(self, *frames: bytes | Json) -> list[Json]:
        """Send frames; gives what was answered to them at once."""
        start = len(self.messages)
        self._asked += 1
        last = f"and this is the last {self._asked}"
        self.send(*frames, {"id": last, "method": "session/list"})
        with trio.fail_after(PATIENCE):
            while self.messages == [] or self.messages[-1].get("id") != last:
                await self._news.wait()
        return self.messages[start:-1]

    async def answer(self, request: bytes | Json) -> Json:
        """Send one request; gives its one answer."""
        [answer] = await self.answers(request)
        return answer

    async def code(self, method: str, params: object) -> int:
        """Send a request that is refused; gives the error's code."""
        answer = await self.answer({"id": 1, "method": method, "params": params})
        code: int = answer["error"]["code"]
        return code

    async def initialize(self, **params: Any) -> Json:
        """The first thing a client says; gives the result."""
        given = {"protocolVersion": 1, **params}
        answer = await self.first({"id": "hello", "method": "initialize", "params": given})
        result: Json = answer["result"]
        return result

    async def first(self, frame: bytes | Json) -> Json:
        """Send a frame; gives the next message, whatever it is."""
        start = len(self.messages)
        self.send(frame)
        with trio.fail_after(PATIENCE):
            while len(self.messages) == start:
                await self._news.wait()
        return self.messages[start]
