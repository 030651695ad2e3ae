"""Says a hundred thousand things to a live daemon, right and wrong, in any order.

Messages are made from a grammar: every method, with its own params, with damaged ones, with those
of another, and frames that are none; over the unix socket and WebSocket, several connections at
once. Whatever they are, the connection lives, every request that is
one has exactly one answer, no answer tells of a bug, a path or a traceback, and in the end memory
and descriptors are what they were. A round is one message.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from scripts.torture.daemon import Daemon, complaints, running_daemon
from scripts.torture.report import Program, Report, run
from scripts.torture.wire import Carrier, Gone, Link, open_link


PROGRAM = Program("messages", __doc__, rounds=100_000, quick_rounds=3_000)

CONNECTIONS = 6
BURST = 25  # messages between two looks at what came back
ANSWER = 30.0  # seconds for the answers to a burst
SETTLE = 60.0  # seconds for the answers to all that is open in the end
MEMORY = 64 * 1024  # KiB: what sessions that are kept on purpose may add, and a leak would exceed
WARM = 0.2  # of the messages come before memory is measured first
OURS = {"code", "retryable"}
NEVER = ("Traceback", "site-packages", "moorage_daemon", 'File "', "Error(")

SESSION: list[tuple[str, dict[str, Any]]] = [
    ("session/prompt", {"prompt": [{"type": "text", "text": "hello"}]}),
    ("session/prompt", {"prompt": [{"type": "text", "text": "/stream 20"}]}),
    ("session/prompt", {"prompt": [{"type": "text", "text": "/plan"}]}),
    ("session/prompt", {"prompt": [{"type": "text", "text": "/fail"}]}),
    ("session/prompt", {"prompt": [], "_meta": {"moorage": {"onBusy": "supersede"}}}),
    ("session/cancel", {"_meta": {"moorage": {"scope": "all"}}}),
    ("session/cancel", {"_meta": {"moorage": {"generation": 1}}}),
    ("session/load", {"cwd": "/", "mcpServers": []}),
    ("session/resume", {"cwd": "/", "mcpServers": []}),
    ("session/close", {}),
    ("session/set_mode", {"modeId": "ask"}),
    ("session/set_config_option", {"configId": "model", "value": "default"}),
    ("session/configure", {"overrides": {"temperature": 0.5, "model": None}}),
    ("session/kill", {"reason": "because"}),
    ("_moorage/session/attach", {"afterSeq": 0}),
    ("_moorage/session/attach", {"access": "observer"}),
    ("_moorage/session/detach", {}),
    ("_moorage/session/entries", {"after": 0, "limit": 5}),
    ("_moorage/session/turns", {"after": 0}),
    ("_moorage/session/usage", {}),
    ("_moorage/session/withdraw", {"generation": 2}),
    ("_moorage/session/config/get", {}),
    ("_moorage/session/config/set", {"config": {"name": "n"}}),
    ("_moorage/permission/respond", {"toolCallId": "x", "optionId": "allow"}),
]
OTHER: list[tuple[str, dict[str, Any]]] = [
    ("session/list", {}),
    ("session/list", {"cursor": "x", "cwd": "/"}),
    ("_moorage/status", {}),
    ("_moorage/session/live", {}),
    ("_moorage/tui/list", {}),
    ("initialize", {"protocolVersion": 1}),
    ("session/unheard_of", {}),
    ("$/cancel_request", {"requestId": "x"}),
]
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


@dataclass(eq=False)
class Talker:
    """One connection, and what it is owed."""

    link: Link
    name: str
    chance: random.Random
    problems: list[str] = field(default_factory=list[str])
    codes: Counter[int] = field(default_factory=Counter[int])
    sessions: list[str] = field(default_factory=list[str])
    open: dict[object, str] = field(default_factory=dict[object, str])  # id to method
    _asked: int = 0

    async def introduce(self) -> None:
        """Say hello."""
        params: dict[str, Any] = {"protocolVersion": 1, "_meta": {"moorage": {}}}
        await self.link.send(self._request("initialize", params))
        await self.hear_all()

    async def burst(self, number: int) -> None:
        """Say some things, and hear what comes of them."""
        if not self.sessions or self.chance.random() < 0.1:
            params: dict[str, Any] = {"cwd": "/", "mcpServers": []}
            await self.link.send(self._request("session/new", params))
        for _ in range(number):
            await self.link.send(self._message())
        await self.hear_all(leave_prompts=True)

    async def wind_down(self) -> None:
        """End all that runs, and hear all answers."""
        for session in self.sessions:
            params = {"sessionId": session, "_meta": {"moorage": {"scope": "all"}}}
            await self.link.send(self._request("session/cancel", params))
        await self.hear_all()

    def _message(self) -> bytes:
        chance = self.chance
        if chance.random() < 0.15:
            return chance.choice(NO_FRAMES).encode("utf-8", "surrogatepass")
        of_session = bool(self.sessions) and chance.random() < 0.8
        method, params = chance.choice(SESSION if of_session else OTHER)
        if method == "session/kill" and chance.random() < 0.8:
            method = "session/cancel"
        params = dict(params)
        if of_session:
            params["sessionId"] = chance.choice([*self.sessions[-3:], "a" * 26])
        if chance.random() < 0.35:
            self._damage(params)
        if chance.random() < 0.15:
            message = {"jsonrpc": "2.0", "method": method, "params": params}
            return json.dumps(message).encode()
        return self._request(method, params)

    def _damage(self, params: dict[str, Any]) -> None:
        chance = self.chance
        for _ in range(chance.choice((1, 1, 2))):
            name = chance.choice([*params, "_meta", "sessionId", "x"])
            if chance.random() < 0.3:
                params.pop(name, None)
            else:
                params[name] = chance.choice(VALUES)

    def _request(self, method: str, params: object) -> bytes:
        self._asked += 1
        request_id: object = self.chance.choice([self._asked, f"{self._asked}-é"])
        self.open[request_id] = method
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        return json.dumps(message).encode()

    async def hear_all(self, *, leave_prompts: bool = False) -> None:
        """Read until everything is answered, or all but prompts."""
        while any(not leave_prompts or name != "session/prompt" for name in self.open.values()):
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
            self._check_error(error)
        elif method == "session/new":
            self.sessions.append(message["result"]["sessionId"])

    def _check_error(self, error: dict[str, Any]) -> None:
        self.codes[error["code"]] += 1
        words = json.dumps(error)
        if error["code"] == -32603 or set(error["data"]) != OURS:
            self.problems.append(f"{self.name}: {words}")
        if any(word in words for word in NEVER):
            self.problems.append(f"{self.name}: it tells too much: {words}")


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


async def converse(report: Report, name: str, messages: int) -> Talk:
    """A daemon, talked to over several connections at once."""
    async with running_daemon(report.work / name) as daemon:
        before, warm = descriptors(daemon), 0
        talkers: list[Talker] = []
        for number in range(CONNECTIONS):
            carrier = list(Carrier)[number % 2]
            link = await open_link(daemon.address, carrier)
            chance = random.Random(f"{report.seed} {number}")
            talkers.append(Talker(link, f"{carrier} {number}", chance))
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
    return Talk(problems, codes, growth, (before, after))


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


async def torture(report: Report) -> None:
    """Talk to a daemon, then to one with a bug."""
    talk = await converse(report, "state", report.rounds)
    for problem in talk.problems:
        report.violation(problem)
    report.check(talk.growth <= MEMORY, f"memory grew by {talk.growth} KiB")
    report.check(talk.fds[1] <= talk.fds[0], f"descriptors: {talk.fds[0]}, then {talk.fds[1]}")
    report.figures["messages"] = report.rounds
    report.figures["errors"] = {str(code): talk.codes[code] for code in sorted(talk.codes)}
    report.figures["memory_growth_kib"] = talk.growth
    report.figures["descriptors"] = talk.fds
    with planted(report.work):
        bad = await converse(report, "bug", 1500)
    report.control("a handler with a bug", bad.problems)


if __name__ == "__main__":
    run(PROGRAM, torture)
