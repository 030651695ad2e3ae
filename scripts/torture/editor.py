"""Kills the daemon under an editor, again and again, and asks the editor whether it noticed.

The editor is a program of the Agent Client Protocol's Python SDK, with one `moorage acp` for all
rounds. In each round it has a turn that streams with another queued behind it, a turn that runs a
command, and a row of short turns; then the daemon is killed. Half of the daemons come back by
themselves, the others are left to the bridge to start, and some are killed again at once. In the
end every request has one answer and none an error, and all that the editor was told is the log,
once and in order. The control arms are bridges that forget how far their editor is.
"""

import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from moorage_protocol.rendezvous import is_alive, read_daemon
from scripts.torture.daemon import complaints, start_daemon
from scripts.torture.leftovers import marked
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.sdk import Json, SdkEditor, open_sdk_editor
from scripts.torture.stored import read_updates
from tests.clients.forgetful import FORGETFUL
from tests.e2e.editors import MOORAGE


PROGRAM = Program("editor", __doc__, rounds=50, quick_rounds=5)

MOST_UPTIME = 0.6  # seconds of work before the kill
AT_ONCE = 0.2  # of the rounds: the kill comes while the prompts are on their way
ALLOWED = 0.7  # of the questions, the others are left open
AGAIN = 0.2  # of the rounds: the next daemon is killed too, as soon as it shows itself
ANSWERED = 20.0  # seconds from the last kill until every prompt is answered
GONE = 5.0  # seconds for a killed daemon to be gone
LOOK = 0.005  # seconds between looks for a daemon
CONTROL_ROUNDS = 3


L = TypeVar("L", bound="Life")


@dataclass(eq=False)
class Life:
    """One editor's, and what is counted in it."""

    report: Report
    state: Path
    editor: SdkEditor
    daemons: trio.Nursery
    sessions: list[str] = field(default_factory=list[str])
    kills: int = 0
    started_by_bridge: int = 0
    ends: list[str] = field(default_factory=list[str])
    waits: list[float] = field(default_factory=list[float])
    killed: trio.Event = field(default_factory=trio.Event)

    def allows(self) -> bool:
        """Whether a question is answered; those behind the kill are, or their turn never ends."""
        return self.killed.is_set() or self.report.random.random() < ALLOWED

    # ---- the daemon

    @property
    def pid(self) -> int:
        """The daemon's; 0 while there is none."""
        daemon = read_daemon(self.state)
        return daemon.pid if daemon is not None and is_alive(self.state) else 0

    async def kill(self) -> None:
        """SIGKILL to whichever daemon there is, or as soon as there is one; wait for its end."""
        with trio.fail_after(ANSWERED):
            await until(lambda: self.pid > 0)
        os.kill(self.pid, signal.SIGKILL)
        self.kills += 1
        with trio.fail_after(GONE):
            await until(lambda: not is_alive(self.state))

    async def come_back(self) -> None:
        """The next daemon, from us or from the bridge."""
        if self.report.random.random() < 0.5:
            starting = await start_daemon(self.state)
            self.daemons.start_soon(starting.process.wait)
        else:
            self.started_by_bridge += 1

    async def strike(self) -> None:
        """What a round is about."""
        await self.kill()

    async def recover(self) -> None:
        """The next daemon, which may be killed at once."""
        await self.come_back()
        if self.report.random.random() < AGAIN:
            await self.kill()
            await self.come_back()

    # ---- one round

    async def round(self) -> None:
        """Everything under way, a blow, and everything answered."""
        chance = self.report.random
        async with trio.open_nursery() as nursery:
            killed = self.killed = trio.Event()
            for session, texts in zip(self.sessions, PROGRAMME, strict=False):
                for text in texts:
                    number = await self.prompt(session, text)
                    nursery.start_soon(self.follow, number)
            nursery.start_soon(self._short_turns, self.sessions[-1], killed)
            at_once = chance.random() < AT_ONCE
            await trio.sleep(chance.uniform(0, 0.005 if at_once else MOST_UPTIME))
            await self.strike()
            began = time.monotonic()
            killed.set()
            await self.recover()
            nursery.cancel_scope.deadline = trio.current_time() + ANSWERED
        if nursery.cancel_scope.cancelled_caught:
            self.report.violation("a prompt is not answered")
        self.waits.append(time.monotonic() - began)

    async def prompt(self, session: str, text: str) -> int:
        content = [{"type": "text", "text": text}]
        return await self.editor.start("prompt", session_id=session, prompt=content)

    async def follow(self, number: int) -> None:
        """Wait for the end of a turn."""
        answer = await self.editor.wait(number)
        self.ends.append(answer.get("result", {}).get("stopReason", "error"))

    async def _short_turns(self, session: str, killed: trio.Event) -> None:
        while not killed.is_set():
            await self.follow(await self.prompt(session, "short"))

    # ---- what has to hold

    def problems(self) -> list[str]:
        """What the editor has noticed."""
        wrong = self.editor.problems()
        for session in self.sessions:
            told = [_marked(params) for params in self.editor.updates(session)]
            logged = read_updates(self.state, session)
            if told != logged:
                wrong.append(f"{session}: {_difference(told, logged)}")
        return wrong + [f"a turn ended {end}" for end in self.ends if end not in GOOD_ENDS]


PROGRAMME = (
    ["/stream 300 0.003", "second in the queue"],
    ["/run echo begins; sleep 2; echo ends"],
)
GOOD_ENDS = {"end_turn", "cancelled"}

Told = tuple[int, Json]


def _marked(params: Json) -> Told:
    return params["_meta"]["moorage"]["seq"], params["update"]


def _difference(told: Sequence[Told], logged: Sequence[Told]) -> str:
    seqs = [seq for seq, _ in told]
    twice = len(seqs) - len({*seqs})
    missing = {seq for seq, _ in logged} - {*seqs}
    strange = {*seqs} - {seq for seq, _ in logged}
    order = "in order" if seqs == sorted(seqs) else "out of order"
    return f"{len(missing)} missing, {twice} twice, {len(strange)} not in the log, {order}"


async def until(holds: Callable[[], bool]) -> None:
    """Look until it is so."""
    while not holds():  # noqa: ASYNC110 - of another program's end nobody tells
        await trio.sleep(LOOK)


# ---- the whole of it


@asynccontextmanager
async def living(
    report: Report,
    state: Path,
    command: Sequence[str],
    make: Callable[[SdkEditor, trio.Nursery], L],
) -> AsyncGenerator[L]:
    """An editor with its bridge and three sessions; no daemon is left in the end."""
    try:
        async with trio.open_nursery() as daemons:
            async with open_sdk_editor(command) as editor:
                life = make(editor, daemons)
                editor.allows = life.allows
                for _ in range(len(PROGRAMME) + 1):
                    new = await editor.call("new_session", cwd=str(report.work), mcp_servers=[])
                    life.sessions.append(new["sessionId"])
                yield life
            daemons.cancel_scope.cancel()
    finally:
        for pid in marked(str(state)):  # also a daemon that was just about to start
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def near(report: Report, state: Path, command: Sequence[str]) -> AsyncGenerator[Life]:
    """The same with a daemon that the bridge starts if need be."""
    await trio.Path(state).mkdir(mode=0o700)

    def make(editor: SdkEditor, daemons: trio.Nursery) -> Life:
        return Life(report, state, editor, daemons)

    async with living(report, state, command, make) as life:
        yield life


def _bridge(state: Path) -> list[str]:
    return ["-c", MOORAGE, "acp", "--state-dir", str(state)]


async def control(report: Report, which: str) -> None:
    """A bridge that forgets, under the same rounds."""
    state = report.work / which.replace(" ", "-")
    command = ["-m", "tests.clients.forgetful", which, str(state)]
    quiet = Report(report.program, CONTROL_ROUNDS, report.seed, report.work)
    quiet.say = lambda text: None  # type: ignore[method-assign]  # what it finds is expected
    async with near(quiet, state, command) as life:
        for _ in range(CONTROL_ROUNDS):
            await life.round()
        report.control(which, quiet.violations + life.problems())


async def torture(report: Report) -> None:
    """Kill, and kill again."""
    state = report.work / "state"
    async with near(report, state, _bridge(state)) as life:
        for number in range(1, report.rounds + 1):
            await life.round()
            report.say(f"{number} rounds, {life.kills} kills, {life.ends.count('cancelled')} cut")
        for problem in life.problems():
            report.violation(problem)
        end = await life.editor.leave()
        report.check((end["left"], end["stderr"]) == (0, ""), f"the bridge ended so: {end}")
    cut = life.ends.count("cancelled")
    report.check(cut > 0, "no turn was cut: nothing was shown")
    for line in _logs(state):
        report.violation(f"the daemon's log: {line}")
    for which in FORGETFUL:
        await control(report, which)
    report.figures |= {
        "kills": life.kills,
        "daemons_left_to_the_bridge": life.started_by_bridge,
        "prompts_answered": len(life.ends),
        "turns_cut": cut,
        "updates_seen": sum(len(life.editor.updates(session)) for session in life.sessions),
        "kill_to_all_answered": spread(life.waits),
    }


def _logs(state: Path) -> list[str]:
    """What the daemons said that none should: ours in one file, the bridge's in another."""
    theirs = state / "daemon.log"
    found = theirs.read_text().splitlines() if theirs.exists() else []
    return complaints(state) + [line for line in found if " ERROR " in line or "Traceback" in line]


if __name__ == "__main__":
    run(PROGRAM, torture)
