"""A model provider on a loopback socket that does what it is told, well or badly.

It counts the connections that are open, and notices when its client closes one.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import trio

from moorage_daemon.provider_settings import ProviderKind, ProviderSettings


READ = 65536  # bytes
PATIENCE = 30.0  # seconds
TLS = b"\x16"  # the first byte of a client that wants to encrypt

Json = dict[str, Any]


@dataclass(eq=False)
class Visit:
    """One request and the connection it came on; what is not sent chunked is sent as it is."""

    stream: trio.SocketStream
    target: str
    headers: dict[str, str]
    body: Json
    is_last: bool = False

    def close(self) -> None:
        """Let the connection end when the play does."""
        self.is_last = True

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(
        self, status: int = 200, media_type: str = "text/event-stream", **headers: str
    ) -> None:
        """Begin a chunked answer; an underscore in a header's name is a hyphen."""
        fields = {"content-type": media_type, "transfer-encoding": "chunked", **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        await self.send("\r\n".join((f"HTTP/1.1 {status} X", *lines, "", "")).encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, value: object) -> None:
        await self.chunk(event(value))

    async def end(self) -> None:
        """End a chunked answer; the connection can be used again."""
        await self.send(b"0\r\n\r\n")

    async def until_closed(self) -> None:
        """Wait until the client has closed the connection."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(READ):
                pass


Play = Callable[[Visit], Awaitable[None]]


@dataclass(eq=False)
class FakeProvider:
    """What it was asked, and what it does: the plays in their order, then the last one again.

    `open` connections may be idle; on those that are `playing` an answer is under way.
    """

    port: int = 0
    plays: deque[Play] = field(default_factory=deque[Play])
    visits: list[Visit] = field(default_factory=list[Visit])
    open: int = 0
    playing: int = 0
    connections: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def settings(self, **changes: Any) -> ProviderSettings:
        """Settings that lead here, with deadlines no test comes near and no second try."""
        defaults: Json = {"retry_seconds": 0.0, "base_url": self.base_url}
        return ProviderSettings(kind=ProviderKind.OPENAI, model="small", **(defaults | changes))

    @property
    def asked(self) -> list[Json]:
        """The bodies of all requests."""
        return [visit.body for visit in self.visits]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        self.connections += 1
        try:
            while (visit := await _read_request(stream)) is not None:
                self.visits.append(visit)
                self._tell()
                play = self.plays.popleft() if len(self.plays) > 1 else self.plays[0]
                self.playing += 1
                try:
                    await play(visit)
                finally:
                    self.playing -= 1
                    self._tell()
                if visit.is_last:
                    break
        except trio.BrokenResourceError:
            pass  # the client has closed it
        finally:
            self.open -= 1
            self._tell()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until that is so, looking again when a request comes or an answer ends."""
        with trio.fail_after(PATIENCE):
            while not holds():
                await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


async def _read_request(stream: trio.SocketStream) -> Visit | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some(READ)
        if not piece or piece.startswith(TLS):
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += await stream.receive_some(READ)
    return Visit(stream, first.split(" ")[1], headers, msgspec.json.decode(body))


@asynccontextmanager
async def open_fake(*plays: Play) -> AsyncGenerator[FakeProvider]:
    """A fake provider that listens."""
    fake = FakeProvider(plays=deque(plays or (saying("Hello."),)))
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, fake.serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        fake.port = listeners[0].socket.getsockname()[1]
        try:
            yield fake
        finally:
            nursery.cancel_scope.cancel()


# ---- what it says


def event(value: object) -> bytes:
    """A server-sent event."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


def chunk(text: str | None = None, *, finish: str | None = None, **delta: Any) -> Json:
    """A chunk of a chat completion."""
    content = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": content | delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}


def usage(prompt: int, completion: int) -> Json:
    """The last chunk, where usage was asked for."""
    counted = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"object": "chat.completion.chunk", "choices": [], "usage": counted}


def answer(texts: Sequence[str], tokens: tuple[int, int] | None = None) -> bytes:
    """A whole answer as OpenAI gives it."""
    events = [event(chunk("", role="assistant")), *(event(chunk(text)) for text in texts)]
    events.append(event(chunk(finish="stop")))
    if tokens is not None:
        events.append(event(usage(*tokens)))
    return b"".join(events) + b"data: [DONE]\n\n"


def saying(*texts: str, tokens: tuple[int, int] | None = None) -> Play:
    """Answers as it should."""

    async def play(visit: Visit) -> None:
        await visit.head()
        await visit.chunk(answer(texts, tokens))
        await visit.end()

    return play


def streaming(*values: object, then: bytes = b"data: [DONE]\n\n") -> Play:
    """Answers with events of the test's own."""

    async def play(visit: Visit) -> None:
        await visit.head()
        for value in values:
            await visit.event(value)
        if then:
            await visit.chunk(then)
        await visit.end()

    return play


def refusing(status: int, body: object = None, **headers: str) -> Play:
    """Answers with an error."""

    async def play(visit: Visit) -> None:
        await visit.head(status, "application/json", **headers)
        await visit.chunk(msgspec.json.encode(body or {"error": {"message": "no"}}))
        await visit.end()

    return play
