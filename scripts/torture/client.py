"""A client that knows moorage and keeps a ledger for each session it is told of.

It answers permission questions as it was told to, can stop reading, and can be cut at any byte.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio

from scripts.torture.ledger import Json, Ledger, told_entry
from scripts.torture.wire import Address, Carrier, Gone, Link, open_link


class Refused(Exception):
    """The daemon answered a request with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Problem(msgspec.Struct):
    """The error of a response."""

    code: int
    message: str


class Message(msgspec.Struct):
    """Any JSON-RPC message."""

    method: str | None = None
    id: int | str | None = None
    params: Json = {}
    result: Json | None = None
    error: Problem | None = None


_decode = msgspec.json.Decoder(Message).decode


@dataclass(eq=False)
class Pending:
    """A request on its way; `answered_at` is when its answer was read."""

    id: int
    done: trio.Event = field(default_factory=trio.Event)
    answer: Message | None = None
    answered_at: float = 0.0

    @property
    def code(self) -> int | None:
        """The code of the error it was answered with."""
        error = self.answer.error if self.answer is not None else None
        return error.code if error is not None else None

    async def result(self) -> Json:
        """Wait for it; raises `Refused`, and `Gone` if the connection ended first."""
        await self.done.wait()
        if self.answer is None:
            raise Gone("no answer")
        if self.answer.error is not None:
            raise Refused(self.answer.error.code, self.answer.error.message)
        return self.answer.result or {}


def _new_ledgers() -> dict[str, Ledger]:
    return {}


@dataclass(eq=False)
class Client:
    """A client that advertised moorage. `ledgers` may be those of an earlier connection.

    `permission` is the option it chooses when asked, None to leave questions open.
    """

    link: Link
    ledgers: dict[str, Ledger] = field(default_factory=_new_ledgers)
    permission: str | None = "allow"
    gone: trio.Event = field(default_factory=trio.Event)
    _open: dict[int, Pending] = field(default_factory=dict[int, Pending])
    _asked: int = 0
    _may_read: trio.Event = field(default_factory=trio.Event)
    _news: trio.Event = field(default_factory=trio.Event)

    # ---- reading

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                await self._may_read.wait()
                for message in await self.link.receive():
                    await self.take(message)
        except Gone:
            pass
        finally:
            self.gone.set()
            for pending in self._open.values():
                pending.done.set()
            self._tell_news()

    def pause(self) -> None:
        """Read no more, at the latest behind the read that is under way."""
        self._may_read = trio.Event()

    def resume(self) -> None:
        """Read again."""
        self._may_read.set()

    async def take(self, raw: bytes) -> None:
        """Take one message from the daemon."""
        message = _decode(raw)
        if message.method is None:
            self._answered(message)
        elif message.id is not None:
            await self._asked_for(message)
        elif (entry := told_entry(message.method, message.params)) is not None:
            self.ledger(message.params["sessionId"]).take(entry)
            self._tell_news()

    def _answered(self, message: Message) -> None:
        pending = self._open.pop(message.id, None) if isinstance(message.id, int) else None
        if pending is not None:
            pending.answer, pending.answered_at = message, trio.current_time()
            pending.done.set()

    async def _asked_for(self, message: Message) -> None:
        if message.method != "session/request_permission" or self.permission is None:
            return
        outcome = {"outcome": "selected", "optionId": self.permission}
        answer = {"jsonrpc": "2.0", "id": message.id, "result": {"outcome": outcome}}
        with suppress(Gone):
            await self.link.send(msgspec.json.encode(answer))

    def ledger(self, session: str) -> Ledger:
        """What was told of that session."""
        return self.ledgers.setdefault(session, Ledger(session))

    def _tell_news(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until it is so, looking after each entry; raises `Gone`."""
        while not is_true():
            if self.gone.is_set():
                raise Gone
            await self._news.wait()

    async def until_seq(self, ledger: Ledger, seq: int) -> None:
        """Wait until that entry was told."""
        await self.until(lambda: ledger.last >= seq)

    # ---- asking

    async def start(self, method: str, params: Json) -> Pending:
        """Send a request; raises `Gone`."""
        if self.gone.is_set():  # over TCP one more message can be sent than is ever answered
            raise Gone
        self._asked += 1
        pending = Pending(self._asked)
        self._open[pending.id] = pending
        message = {"jsonrpc": "2.0", "id": pending.id, "method": method, "params": params}
        await self.link.send(msgspec.json.encode(message))
        return pending

    async def call(self, method: str, params: Json) -> Json:
        """A request and its answer; raises `Refused` or `Gone`."""
        return await (await self.start(method, params)).result()

    async def notify(self, method: str, params: Json) -> None:
        """Send a notification."""
        await self.link.send(
            msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params})
        )

    async def new(self, cwd: str) -> str:
        """A new session; the answer tells its first entry."""
        meta = {"moorage": {"keepSiblings": True}}
        answer = await self.call("session/new", {"cwd": cwd, "mcpServers": [], "_meta": meta})
        session = str(answer["sessionId"])
        self.ledger(session).last = 1
        return session

    async def load(self, session: str, cwd: str) -> Json:
        """All of a session again, then live; answered behind what there was."""
        params: Json = {"sessionId": session, "cwd": cwd, "mcpServers": []}
        return await self.call("session/load", params)

    async def prompt(self, session: str, text: str, **meta: Any) -> Pending:
        """Start a turn."""
        return await self.start("session/prompt", prompt_params(session, text, **meta))

    async def attach(self, session: str, after: int) -> Json:
        """Follow a session from behind an entry."""
        return await self.call("_moorage/session/attach", {"sessionId": session, "afterSeq": after})

    async def log(self, session: str) -> Ledger:
        """The whole log, page by page, as a ledger of its own."""
        found = Ledger(session)
        after: int | None = 0
        while after is not None:
            params = {"sessionId": session, "after": after, "limit": 1000}
            page = await self.call("_moorage/session/entries", params)
            for entry in page["entries"]:
                found.take(entry)
            after = page.get("next")
        return found


@asynccontextmanager
async def open_client(
    address: Address,
    carrier: Carrier,
    *,
    ledgers: dict[str, Ledger] | None = None,
    permission: str | None = "allow",
    receive_buffer: int | None = None,
) -> AsyncGenerator[Client]:
    """Connect and say hello. Leaving closes the connection."""
    link = await open_link(address, carrier, receive_buffer=receive_buffer)
    async with talking(link, ledgers=ledgers, permission=permission) as client:
        yield client


@asynccontextmanager
async def talking(
    link: Link, *, ledgers: dict[str, Ledger] | None = None, permission: str | None = "allow"
) -> AsyncGenerator[Client]:
    """A client on a link, after its hello. Leaving closes the link."""
    client = Client(link, {} if ledgers is None else ledgers, permission)
    problem: Gone | Refused | None = None
    try:
        async with trio.open_nursery() as nursery:
            client.resume()
            nursery.start_soon(client.run)
            try:  # inside, so that what is raised is no group
                await client.call("initialize", HELLO)
                yield client
            except (Gone, Refused) as error:
                problem = error
            nursery.cancel_scope.cancel()
    finally:
        link.socket.close()
    if problem is not None:
        raise problem


def prompt_params(session: str, text: str, **meta: Any) -> Json:
    """The parameters of `session/prompt`."""
    prompt = [{"type": "text", "text": text}]
    return {"sessionId": session, "prompt": prompt, "_meta": {"moorage": meta}}


HELLO: Json = {"protocolVersion": 1, "clientCapabilities": {}, "_meta": {"moorage": {}}}
