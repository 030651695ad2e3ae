"""Knocks at the WebSocket in every combination of what a handshake can show.

Host forms times Origin forms times credential forms, and all paths: whoever comes in has to be
exactly whom the rules let in, and everybody else is told the same few words. What the rules are
stands here once more, beside each form; the gate is not asked. In the end the token must be
nowhere but in its file: in no answer, log, argument or environment. A round is one pass over all.
"""

import base64
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from urllib.parse import quote

import trio
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.trio.server import Server, ServerConnection, serve

from scripts.torture.daemon import Daemon, complaints, log_path, running_daemon
from scripts.torture.report import Program, Report, run


PROGRAM = Program("gate", __doc__, rounds=1, quick_rounds=1)

PATIENCE = 10.0  # seconds for an answer
AT_ONCE = 8  # handshakes
PAGE = "https://good.example"
HOST = "moorage.example:8443"
SETTINGS = f'allowed_origins = ["{PAGE}"]\nallowed_hosts = ["{HOST}"]\n'
NAMES = {"date", "connection", "content-length", "content-type"}  # of a refusal's headers
PROTOCOL = "Sec-WebSocket-Protocol"

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Form:
    """Header lines, and whom the rules let in with them: others, an allowed page, nobody."""

    lines: Lines
    good: bool = False
    good_for_page: bool = False
    selects: bool = False  # a subprotocol


def form(name: str, *values: str, good: bool = False) -> Form:
    """One header, on as many lines as there are values."""
    return Form(tuple((name, value) for value in values), good, good)


def hosts(port: int) -> list[Form]:
    """Is it this daemon that was meant?"""
    own = [f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", HOST]
    others = [
        "127.0.0.1", f"127.0.0.1:{port + 1}", f"evil.example:{port}", f"127.evil.com:{port}",
        f"127.0.0.1.evil.com:{port}", "localhost.evil.com", f"LOCALHOST.:{port}", f"0.0.0.0:{port}",
        f"evil@127.0.0.1:{port}", "moorage.example", "",
    ]  # fmt: skip
    return [
        *[form("Host", host, good=True) for host in own],
        *[form("Host", host) for host in others],
        form("Host"),
        form("Host", own[0], own[0]),
        form("Host", own[0], f"evil.example:{port}"),
    ]


def origins(port: int) -> list[Form]:
    """May that page talk to it? The second one is the page that may."""
    others = [
        "null", "", f"http://localhost:{port}", "http://localhost:3000", f"http://127.0.0.1:{port}",
        "https://evil.example", "https://good.example.evil.example", f"{PAGE}/", f"{PAGE}:443",
        "HTTPS://GOOD.EXAMPLE", "file://", "vscode-webview://x", "chrome-extension://x",
    ]  # fmt: skip
    return [
        form("Origin", good=True),
        form("Origin", PAGE, good=True),
        *[form("Origin", origin) for origin in others],
        form("Origin", PAGE, PAGE),
        form("Origin", PAGE, "https://evil.example"),
    ]


def credentials(token: str) -> list[Form]:
    """Exactly one good credential? Among the subprotocols it counts for the page alone."""
    bearer = ("Authorization", f"Bearer {token}")
    offer = (PROTOCOL, f"moorage.v1, moorage.bearer.{token}")
    return [
        Form((bearer,), good=True, good_for_page=True),
        Form((bearer, (PROTOCOL, "moorage.v1")), good=True, good_for_page=True, selects=True),
        Form((offer,), good_for_page=True, selects=True),
        Form(((PROTOCOL, f"moorage.bearer.{token}"),), good_for_page=True),
        Form(((PROTOCOL, "moorage.v1, moorage.bearer.wrong"),)),
        Form(((PROTOCOL, f"moorage.v1, moorage.bearer.{token}, moorage.bearer.{token}"),)),
        Form((bearer, offer)),
        Form((bearer, bearer)),
        form("Authorization"),
        form("Authorization", "Bearer wrong"),
        form("Authorization", f"Bearer {token[:-1]}"),
        form("Authorization", f"Basic {token}"),
        form("Authorization", token),
        form("Cookie", f"token={token}"),
        form("X-Forwarded-Authorization", f"Bearer {token}"),
    ]


def paths(token: str) -> list[str]:
    """What is not `/acp`."""
    return [
        "/", "//acp", "/acp/", "/ACP", "/ws/../acp", "/%61cp", "/acp?", f"/acp?token={token}",
        f"/{token}", "/health", "http://127.0.0.1/acp",
    ]  # fmt: skip


@dataclass(frozen=True)
class Knock:
    """One handshake, and what the rules say to it."""

    lines: Lines
    status: int
    path: str = "/acp"
    selects: bool = False

    def bytes(self) -> bytes:
        """As it is sent."""
        always = (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        )
        head = [f"{name}: {value}" for name, value in (*self.lines, *always)]
        return "\r\n".join([f"GET {self.path} HTTP/1.1", *head, "", ""]).encode()


def matrix(port: int, token: str) -> Iterator[Knock]:
    """Every combination."""
    pages = origins(port)
    for host, origin, shown in product(hosts(port), pages, credentials(token)):
        has_page = origin is pages[1]
        good = shown.good_for_page if has_page else shown.good
        status = verdict(host.good, origin.good, on_path=True, credential=good)
        yield Knock(host.lines + origin.lines + shown.lines, status, selects=shown.selects)
    for host, origin, path in product(hosts(port)[:6], pages[:4], paths(token)):
        status = verdict(host.good, origin.good, on_path=False, credential=True)
        yield Knock(host.lines + origin.lines + credentials(token)[0].lines, status, path)


def verdict(host: bool, origin: bool, *, on_path: bool, credential: bool) -> int:
    """The first rule that is broken."""
    if not host:
        return 421
    if not origin:
        return 403
    if not on_path:
        return 404
    return 101 if credential else 401


# ---- knocking


@dataclass(frozen=True)
class Answer:
    """What was said to a handshake."""

    status: int
    headers: Headers
    body: bytes
    whole: bytes


async def knock(port: int, request: bytes) -> Answer:
    """One handshake; of who is let in, only the head is waited for."""
    data = b""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            while b"\r\n\r\n" not in data or not data.startswith(b"HTTP/1.1 101"):
                piece = await stream.receive_some()
                if not piece:
                    break
                data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = Headers(
        [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    )
    return Answer(int(first.split()[1]), headers, body, data)


@dataclass(eq=False)
class Watch:
    """Compares answers with what the rules say."""

    token: str
    problems: list[str] = field(default_factory=list[str])
    told: Counter[int] = field(default_factory=Counter[int])
    bodies: dict[int, set[bytes]] = field(default_factory=dict[int, set[bytes]])
    ids: set[str] = field(default_factory=set[str])

    def check(self, knock: Knock, answer: Answer) -> None:
        """Note what is wrong with one answer."""
        self.told[answer.status] += 1
        if answer.status != knock.status:
            self._note(knock, f"{answer.status} and not {knock.status}")
        if self.token.encode() in answer.whole:
            self._note(knock, "the answer shows the token")
        if answer.status == 101:
            self._check_welcome(knock, answer)
        else:
            self._check_refusal(knock, answer)

    def _check_welcome(self, knock: Knock, answer: Answer) -> None:
        selected = answer.headers.get(PROTOCOL)
        if selected != ("moorage.v1" if knock.selects else None):
            self._note(knock, f"the subprotocol is {selected}")
        connection = answer.headers.get("Acp-Connection-Id", "")
        if len(connection) < 32 or connection in self.ids:
            self._note(knock, f"the connection's id is {connection!r}")
        self.ids.add(connection)

    def _check_refusal(self, knock: Knock, answer: Answer) -> None:
        bodies = self.bodies.setdefault(answer.status, {answer.body})
        if answer.body not in bodies:
            self._note(knock, f"another body for {answer.status}: {answer.body!r}")
        names = {name.lower() for name, _ in answer.headers.raw_items()}
        if names != NAMES:
            self._note(knock, f"headers {sorted(names)}")

    def _note(self, knock: Knock, problem: str) -> None:
        shown = str((knock.path, *knock.lines)).replace(self.token, "TOKEN")
        self.problems.append(f"{shown}: {problem}")


async def knock_all(port: int, token: str, knocks: Sequence[Knock]) -> Watch:
    """Try them all, a few at a time."""
    watch, limiter = Watch(token), trio.CapacityLimiter(AT_ONCE)

    async def one(each: Knock) -> None:
        async with limiter:
            watch.check(each, await knock(port, each.bytes()))

    async with trio.open_nursery() as nursery:
        for each in knocks:
            nursery.start_soon(one, each)
    return watch


def leaks(token: str, places: dict[str, bytes]) -> list[str]:
    """Where the token can be read, in one form or another."""
    forms = {
        token.encode(),
        token.encode().hex().encode(),
        base64.b64encode(token.encode()).rstrip(b"="),
        quote(token, safe="").encode(),
    }
    return [name for name, content in places.items() if any(form in content for form in forms)]


def places_of(daemon: Daemon) -> dict[str, bytes]:
    """All that a daemon wrote or shows, but for the file that is there for the token."""
    files = [path for path in daemon.state.rglob("*") if path.is_file() and path.name != "token"]
    shown = [Path(f"/proc/{daemon.pid}/{name}") for name in ("cmdline", "environ")]
    return {str(path): path.read_bytes() for path in [*files, log_path(daemon.state), *shown]}


# ---- control arms


@asynccontextmanager
async def careless_server(token: str, *, asks_for: str) -> AsyncGenerator[int]:
    """A server that checks one thing and forgets the others; gives its port."""

    def admit(asked: str, channel: ServerConnection, request: Request) -> Response | None:
        shown = request.headers.get_all("Authorization")
        if asked == "token" and f"Bearer {token}" not in shown:
            return channel.respond(401, f"{request.path}: no such token\n")
        if asked == "host" and not str(request.headers.get_all("Host")).startswith("['127."):
            return channel.respond(421, "Host not served.\n")
        return None

    async def ignore(channel: ServerConnection) -> None:
        await channel.wait_closed()

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve, ignore, 0, host="127.0.0.1", process_request=partial(admit, asks_for))
        )
        yield server.listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def torture(report: Report) -> None:
    """Knock at a daemon, then at servers that are careless."""
    async with running_daemon(report.work / "state", SETTINGS) as daemon:
        port, token = int(daemon.address.websocket.rpartition(":")[2].split("/")[0]), ""
        token = daemon.address.token
        knocks = list(matrix(port, token)) * report.rounds
        watch = await knock_all(port, token, knocks)
        for problem in watch.problems:
            report.violation(problem)
        for place in leaks(token, places_of(daemon)):
            report.violation(f"the token stands in {place}")
        report.control("a token in a file", leaks(token, {"token": f"x{token}x".encode()}))
        report.check(daemon.is_alive, "the daemon ended")
        for line in complaints(daemon.state):
            report.violation(f"the daemon's log: {line}")
    report.figures["handshakes"] = len(knocks)
    report.figures["should_be_let_in"] = sum(each.status == 101 for each in knocks)
    report.figures["answers"] = {str(status): watch.told[status] for status in sorted(watch.told)}
    for asked in ("token", "host", "nothing"):
        async with careless_server(token, asks_for=asked) as port:
            seen = await knock_all(port, token, list(matrix(port, token))[::7])
        report.control(f"a server that asks for {asked}", seen.problems)


if __name__ == "__main__":
    run(PROGRAM, torture)
