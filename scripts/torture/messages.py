"""Says a hundred thousand things to a live daemon, right and wrong, in any order.

Messages are made from a grammar: every method of the daemon's own table, with its own params, with
damaged ones, with those of another, and frames that are none; over the unix socket, by lines and
by headers, and over WebSocket, several connections at once, with errands in between that take
several things said right. Every method has to succeed now and then. Whatever it is, the connection
lives, every request that is one has exactly one answer, no answer tells of a bug, a path or a
traceback, and in the end memory and descriptors are what they were. A round is one message.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from moorage_daemon.handlers.table import METHODS
from scripts.torture.daemon import Daemon, complaints, running_daemon
from scripts.torture.errands import ERRANDS
from scripts.torture.report import Program, Report, run
from scripts.torture.wire import Carrier, Frames, Framing, Gone, Headers, Lines, Link, open_link


PROGRAM = Program("messages", __doc__, rounds=100_000, quick_rounds=3_000)

CONNECTIONS = 6
BURST = 25  # messages between two looks at what came back
ANSWER = 30.0  # seconds for the answers to a burst
SETTLE = 60.0  # seconds for the answers to all that is open in the end
MEMORY = 64 * 1024  # KiB: what sessions that are kept on purpose may add, and a leak would exceed
ON_AN_ERRAND = 0.15  # of the bursts, and each first one
WARM = 0.2  # of the messages come before memory is measured first
OURS = {"code", "retryable"}
NOT_FOUND = -32002
REFUSES = {"authenticate"}  # always: who is connected is authenticated
NEVER = ("Traceback", "site-packages", "moorage_daemon", 'File "', "Error(")

Params = dict[str, Any]

# What each method is asked: a session's id and what `Talker` has heard of otherwise (imports,
# grants, artifacts) is put in where the params name it.
GRAMMAR: dict[str, list[Params]] = {
    "initialize": [{"protocolVersion": 1}],
    "authenticate": [{"methodId": "token"}],
    "session/new": [{"cwd": "/", "mcpServers": []}],
    "session/load": [{"sessionId": "", "cwd": "/", "mcpServers": []}],
    "session/resume": [{"sessionId": "", "cwd": "/", "mcpServers": []}],
    "session/list": [{}, {"cursor": "x", "cwd": "/"}],
    "session/close": [{"sessionId": ""}],
    "session/delete": [{"sessionId": ""}],
    "session/status": [{"sessionId": ""}],
    "session/set_title": [{"sessionId": "", "title": "a title"}],
    "session/archive": [{"sessionId": ""}],
    "session/unarchive": [{"sessionId": ""}],
    "session/prompt": [
        {"sessionId": "", "prompt": [{"type": "text", "text": "hello"}]},
        {"sessionId": "", "prompt": [{"type": "text", "text": "/stream 20"}]},
        {"sessionId": "", "prompt": [{"type": "text", "text": "/plan"}]},
        {"sessionId": "", "prompt": [{"type": "text", "text": "/fail"}]},
        {"sessionId": "", "prompt": [], "_meta": {"moorage": {"onBusy": "supersede"}}},
    ],
    "session/cancel": [
        {"sessionId": "", "_meta": {"moorage": {"scope": "all"}}},
        {"sessionId": "", "_meta": {"moorage": {"generation": 1}}},
    ],
    "session/set_mode": [{"sessionId": "", "modeId": "ask"}],
    "session/set_config_option": [{"sessionId": "", "configId": "model", "value": "default"}],
    "session/kill": [{"sessionId": "", "reason": "because"}],
    "session/configure": [{"sessionId": "", "overrides": {"temperature": 0.5, "model": None}}],
    "_moorage/session/kill": [{"sessionId": "", "reason": "because"}],
    "_moorage/session/configure": [{"sessionId": "", "overrides": {"model": "default"}}],
    "_moorage/session/attach": [
        {"sessionId": "", "afterSeq": 0},
        {"sessionId": "", "access": "observer"},
    ],
    "_moorage/session/detach": [{"sessionId": ""}],
    "_moorage/session/entries": [{"sessionId": "", "after": 0, "limit": 5}],
    "_moorage/session/turns": [{"sessionId": "", "after": 0}],
    "_moorage/session/usage": [{"sessionId": ""}, {"sessionId": "", "after": 3, "limit": 1}],
    "_moorage/session/traces": [{"sessionId": "", "after": 0, "limit": 2}],
    "_moorage/session/artifacts": [{"sessionId": "", "after": 0, "limit": 2}],
    "_moorage/session/reports": [{"sessionId": "", "after": 0, "limit": 2}],
    "_moorage/artifact/get": [{"uri": "moorage://session/x/artifact/1", "offset": 0, "limit": 9}],
    "_moorage/session/export": [{"sessionId": ""}, {"sessionId": "", "cursor": "1.1.1.1.zz"}],
    "_moorage/import/begin": [{}, {"keepId": True}],
    "_moorage/import/part": [
        {"importId": "", "offset": 0, "data": "eyJtb29yYWdlIjoic2Vzc2lvbiJ9Cg=="},
        {"importId": "", "offset": 0, "data": ""},
    ],
    "_moorage/import/finish": [{"importId": ""}],
    "_moorage/session/config/get": [{"sessionId": ""}],
    "_moorage/session/config/set": [
        {"sessionId": "", "config": {"name": "n"}},
        {"sessionId": "", "config": {"permissions": {"deny": ["Bash(rm:*)"]}}},
    ],
    "_moorage/session/withdraw": [{"sessionId": "", "generation": 2}],
    "_moorage/session/pause": [{"sessionId": ""}],
    "_moorage/session/resume": [{"sessionId": ""}],
    "_moorage/session/live": [{}],
    "_moorage/permission/respond": [{"sessionId": "", "toolCallId": "x", "optionId": "allow"}],
    "_moorage/grant/create": [
        {"agent": "mock", "tools": ["Read"], "budget": {"calls": 5}, "timeLimitSeconds": 60},
        {"agent": "mock", "tools": None, "sessionId": ""},
        {"agent": "mock", "tools": [], "parent": "x"},
    ],
    "_moorage/grant/use": [{"grantId": "", "agent": "mock", "tool": "Read"}],
    "_moorage/grant/useBatch": [{"grantId": "", "agent": "mock", "tools": ["Read", "Read(x)"]}],
    "_moorage/grant/get": [{"grantId": ""}],
    "_moorage/grant/raise": [{"grantId": "", "budget": {"calls": 9}}],
    "_moorage/grant/close": [{"grantId": ""}],
    "_moorage/grant/closeForAgent": [{"agent": "another"}],
    "_moorage/grant/list": [{}, {"agent": "mock", "cursor": "x"}],
    "_moorage/grant/gc": [{}],
    "_moorage/store/health": [{}],
    "_moorage/store/check": [{}],
    "_moorage/store/gc": [{}],
    "_moorage/status": [{}],
    "_moorage/tui/list": [{}],
}
NO_METHODS: dict[str, list[Params]] = {
    "session/unheard_of": [{}],
    "$/cancel_request": [{"requestId": "x"}],
}
WORDS = GRAMMAR | NO_METHODS
ABOUT_SESSIONS = [name for name, forms in WORDS.items() if "sessionId" in forms[0]]
OTHERS = [name for name in WORDS if name not in ABOUT_SESSIONS]
FINAL = {"session/kill", "_moorage/session/kill", "session/delete"}  # seldom: sessions remain
FOUND = {"session/new": "sessionId", "_moorage/import/begin": "importId"} | {
    "_moorage/grant/create": "grantId"
}
VALUES: list[Any] = [
    None, True, 0, -1, 2**53, 2**64, 1e308, "", "x", "é😀", "../../etc/passwd", "\x00", "a" * 3000,
    [], [1], {}, {"moorage": 5}, [[[]]], {"a": {"b": [None]}},
]  # fmt: skip
NO_FRAMES = [
    "{", "[]", "5", "null", "{}", '{"jsonrpc":"2.0"}', "[" * 100, '{"a":NaN}', '"\\ud800"', "}{",
    '{"jsonrpc":"2.0","id":1.5,"method":"m"}', '{"jsonrpc":"2.0","id":[],"method":"m"}',
    '{"jsonrpc":"2.0","id":"r","result":{}}', '{"id":null,"error":{"code":1,"message":"m"}}',
    '{"jsonrpc":"2.0","id":7,"method":null}', '{"jsonrpc":"1.0","id":8,"method":"m"}', "x" * 9000,
]  # fmt: skip


class Unlucky(Exception):
    """Something on an errand was answered with an error, which others can be to blame for."""


@dataclass(eq=False)
class Talker:
    """One connection, and what it is owed. `folder` is where its errands lead."""

    link: Link
    name: str
    chance: random.Random
    folder: Path
    problems: list[str] = field(default_factory=list[str])
    codes: Counter[int] = field(default_factory=Counter[int])
    found: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    asked: Counter[str] = field(default_factory=Counter[str])
    answered: Counter[str] = field(default_factory=Counter[str])  # with a result
    open: dict[object, str] = field(default_factory=dict[object, str])  # id to method
    _asked: int = 0
    _errands: int = 0
    _results: dict[object, Any] = field(default_factory=dict[object, Any])

    @property
    def sessions(self) -> list[str]:
        """Those that it made, the latest last."""
        return self.found.setdefault("sessionId", [])

    async def introduce(self) -> None:
        """Say hello."""
        params: dict[str, Any] = {"protocolVersion": 1, "_meta": {"moorage": {}}}
        await self.link.send(self.request("initialize", params))
        await self.hear_all()

    async def burst(self, number: int) -> None:
        """Say some things, and hear what comes of them."""
        if not self.sessions or self.chance.random() < 0.1:
            params: dict[str, Any] = {"cwd": "/", "mcpServers": []}
            await self.link.send(self.request("session/new", params))
        if self._errands < len(ERRANDS) or self.chance.random() < ON_AN_ERRAND:
            self._errands += 1
            with suppress(Unlucky):
                await ERRANDS[self._errands % len(ERRANDS)](self.ask, self.folder)
        for _ in range(number):
            await self.link.send(self._message())
        await self.hear_all(leave_prompts=True)

    async def wind_down(self) -> None:
        """End all that runs, and hear all answers."""
        for session in self.sessions:  # of one that it only watches it may cancel nothing
            taken = {"sessionId": session, "access": "controller"}
            await self.link.send(self.request("_moorage/session/attach", taken))
            params = {"sessionId": session, "_meta": {"moorage": {"scope": "all"}}}
            await self.link.send(self.request("session/cancel", params))
        await self.hear_all()

    def _message(self) -> bytes:
        chance = self.chance
        if chance.random() < 0.15:
            return chance.choice(NO_FRAMES).encode("utf-8", "surrogatepass")
        of_session = bool(self.sessions) and chance.random() < 0.8
        method = chance.choice(ABOUT_SESSIONS if of_session else OTHERS)
        if method in FINAL and chance.random() < 0.8:
            method = "session/cancel"
        params = dict(chance.choice(WORDS[method]))
        for name in params:
            if name in FOUND.values() and params[name] == "":
                params[name] = chance.choice([*self.found.get(name, [])[-3:], "a" * 26])
        if chance.random() < 0.05:
            params = dict(chance.choice(WORDS[chance.choice([*WORDS])]))
        if chance.random() < 0.35:
            self._damage(params)
        if chance.random() < 0.15:
            message = {"jsonrpc": "2.0", "method": method, "params": params}
            return json.dumps(message).encode()
        return self.request(method, params)

    def _damage(self, params: dict[str, Any]) -> None:
        chance = self.chance
        for _ in range(chance.choice((1, 1, 2))):
            name = chance.choice([*params, "_meta", "sessionId", "x"])
            if chance.random() < 0.3:
                params.pop(name, None)
            else:
                params[name] = chance.choice(VALUES)

    def request(self, method: str, params: object) -> bytes:
        """A request, whose answer is waited for from here on."""
        self._asked += 1
        request_id: object = self.chance.choice([self._asked, f"{self._asked}-é"])
        self.open[request_id] = method
        self.asked[method] += 1
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        return json.dumps(message).encode()

    async def ask(self, method: str, params: Params) -> Params:
        """Ask one thing, and wait for its result; raises `Unlucky`."""
        await self.link.send(self.request(method, params))
        *_, request_id = self.open
        self._results[request_id] = None
        while request_id in self.open:
            await self._hear()
        result: Params | None = self._results.pop(request_id)
        if result is None:
            raise Unlucky
        return result

    async def hear_all(self, *, leave_prompts: bool = False) -> None:
        """Read until everything is answered, or all but prompts."""
        while any(not leave_prompts or name != "session/prompt" for name in self.open.values()):
            await self._hear()

    async def _hear(self) -> None:
        for raw in await self.link.receive():
            self._take(json.loads(raw))

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            return
        request_id = message.get("id")
        error = message.get("error")
        method = self.open.pop(request_id, None) if request_id is not None else "no request"
        if method is None and request_id not in (7, 8):
            self.problems.append(f"{self.name}: answered twice, or unasked: {message}")
        if error is not None:
            self._check_error(error, method)
        elif method is not None:
            self.answered[method] += 1
            if request_id in self._results:
                self._results[request_id] = message["result"]
            if method in FOUND:
                self.found.setdefault(FOUND[method], []).append(message["result"][FOUND[method]])

    def _check_error(self, error: dict[str, Any], method: str | None) -> None:
        self.codes[error["code"]] += 1
        words = json.dumps(error)
        if error["code"] == -32603 or not self._is_ours(error, method):
            self.problems.append(f"{self.name}: {words}")
        if any(word in words for word in NEVER):
            self.problems.append(f"{self.name}: it tells too much: {words}")

    def _is_ours(self, error: dict[str, Any], method: str | None) -> bool:
        """Whether its data are what the description says; a status names what was asked for."""
        named = method == "session/status" and error["code"] == NOT_FOUND
        return OURS <= set(error["data"]) <= (OURS | {"sessionId"} if named else OURS)


async def talk(talker: Talker, messages: int) -> None:
    """Say that many things."""
    for _ in range(messages // BURST):
        try:
            with trio.fail_after(ANSWER):
                await talker.burst(BURST)
        except trio.TooSlowError:
            talker.problems.append(f"{talker.name}: no answer to {sorted(talker.open.values())}")
            return
        except Gone as gone:
            talker.problems.append(f"{talker.name}: the connection was lost: {gone}")
            return


async def settle(talker: Talker) -> None:
    """End what runs, and hear of it."""
    try:
        with trio.fail_after(SETTLE):
            await talker.wind_down()
    except trio.TooSlowError:
        talker.problems.append(f"{talker.name}: never answered: {Counter(talker.open.values())}")
    except Gone:
        talker.problems.append(f"{talker.name}: lost in the end")


def descriptors(daemon: Daemon) -> int:
    """How many it has open."""
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@dataclass(eq=False)
class Talk:
    """All that was said to one daemon."""

    problems: list[str]
    codes: Counter[int]
    growth: int
    fds: tuple[int, int]
    asked: Counter[str]
    answered: Counter[str]


CARRIERS: list[tuple[str, Carrier, type[Framing]]] = [
    ("lines", Carrier.UNIX, Lines),
    ("headers", Carrier.UNIX, Headers),
    ("websocket", Carrier.WEBSOCKET, Frames),
]


async def warm_up(daemon: Daemon) -> None:
    """Have the store open what it opens once, on a connection of its own."""
    link = await open_link(daemon.address, Carrier.UNIX)
    talker = Talker(link, "warming up", random.Random(0), daemon.state.parent)
    await talker.introduce()
    for method in ("_moorage/store/check", "_moorage/store/gc", "session/list"):
        await link.send(talker.request(method, {}))
    await talker.hear_all()
    for errand in ERRANDS:
        with suppress(Unlucky):
            await errand(talker.ask, talker.folder)
    held = descriptors(daemon)
    link.cut()
    with trio.fail_after(ANSWER):
        while descriptors(daemon) >= held:  # noqa: ASYNC110 - a process tells nobody
            await trio.sleep(0.05)


async def converse(report: Report, name: str, messages: int) -> Talk:
    """A daemon, talked to over several connections at once."""
    async with running_daemon(report.work / name) as daemon:
        await warm_up(daemon)
        before, warm = descriptors(daemon), 0
        talkers: list[Talker] = []
        for number in range(CONNECTIONS):
            named, carrier, framing = CARRIERS[number % len(CARRIERS)]
            link = await open_link(daemon.address, carrier, framing=framing())
            chance = random.Random(f"{report.seed} {number}")
            talkers.append(Talker(link, f"{named} {number}", chance, report.work))
            await talkers[-1].introduce()
        for share in (WARM, 1 - WARM):
            async with trio.open_nursery() as nursery:
                for talker in talkers:
                    nursery.start_soon(talk, talker, int(messages * share) // CONNECTIONS)
            warm = warm or daemon.memory()["VmRSS"]
            report.say(f"{name}: {share:.0%} said")
        async with trio.open_nursery() as nursery:
            for talker in talkers:
                nursery.start_soon(settle, talker)
        growth = daemon.memory()["VmRSS"] - warm
        for talker in talkers:
            talker.link.cut()
        with trio.move_on_after(ANSWER):
            while descriptors(daemon) > before:  # noqa: ASYNC110 - a process tells nobody
                await trio.sleep(0.05)
        after = descriptors(daemon)
        problems = [problem for talker in talkers for problem in talker.problems]
        problems += [f"the daemon's log: {line}" for line in complaints(daemon.state)]
        if not daemon.is_alive:
            problems.append("the daemon ended")
    codes = sum((talker.codes for talker in talkers), Counter[int]())
    asked = sum((talker.asked for talker in talkers), Counter[str]())
    answered = sum((talker.answered for talker in talkers), Counter[str]())
    return Talk(problems, codes, growth, (before, after), asked, answered)


# ---- control arm


PLANTED = """
from moorage_daemon import app
def identities(self):
    raise RuntimeError("as planted")
app.App.identities = identities
"""


@contextmanager
def planted(work: Path) -> Generator[None]:
    """A daemon that starts meanwhile has a bug in one handler."""
    folder = work / "planted"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PLANTED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def never_succeeded(talk: Talk) -> set[str]:
    """The methods of which nothing but errors is known."""
    return {method for method in METHODS if not talk.answered[method]}


async def torture(report: Report) -> None:
    """Talk to a daemon, then to one with a bug."""
    for method in set(METHODS) ^ set(GRAMMAR):
        report.violation(f"{method}: either the daemon or this grammar does not know it")
    talk = await converse(report, "state", report.rounds)
    for problem in talk.problems:
        report.violation(problem)
    report.check(talk.growth <= MEMORY, f"memory grew by {talk.growth} KiB")
    report.check(talk.fds[1] <= talk.fds[0], f"descriptors: {talk.fds[0]}, then {talk.fds[1]}")
    for method in METHODS:
        report.check(talk.asked[method] > 0, f"{method} was never asked for")
    for method in never_succeeded(talk) ^ REFUSES:
        report.violation(f"{method} succeeded {talk.answered[method]} times")
    report.figures["messages"] = report.rounds
    report.figures["methods"] = len(METHODS)
    report.figures["successes"] = talk.answered.total()
    report.figures["fewest_successes"] = talk.answered.most_common()[:-9:-1]
    report.figures["errors"] = {str(code): talk.codes[code] for code in sorted(talk.codes)}
    report.figures["memory_growth_kib"] = talk.growth
    report.figures["descriptors"] = talk.fds
    with planted(report.work):
        bad = await converse(report, "bug", 1500)
    report.control("a handler with a bug", bad.problems)
    report.control("a method that never succeeds", "_moorage/tui/list" in never_succeeded(bad))


if __name__ == "__main__":
    run(PROGRAM, torture)
