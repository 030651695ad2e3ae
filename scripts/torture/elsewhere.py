"""Cuts an editor off from a daemon elsewhere, or kills that one, and asks whether it noticed.

As `editor` does, but `moorage acp --connect` reaches the daemon over its WebSocket through a
forwarded port. In half of the rounds the connection is cut, with RST and at any byte, now and then
again as soon as it stands; in the others the daemon is killed and comes back. The editor must not
notice: every request has one answer, none is an error, and what it was told is the log. The
control arms are bridges that forget how far their editor is.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from scripts.torture.daemon import complaints, start_daemon
from scripts.torture.editor import AGAIN, Life, living
from scripts.torture.forward import Forward
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.sdk import SdkEditor
from tests.clients.forgetful import FORGETFUL
from tests.e2e.editors import MOORAGE


PROGRAM = Program("elsewhere", __doc__, rounds=50, quick_rounds=5)

CUT = 0.5  # of the rounds: the connection is cut, in the others the daemon is killed
MOST_BYTES = 20_000  # let through before a cut
UNTIL_CUT = 0.2  # seconds; where fewer bytes come it is cut then
CONTROL_ROUNDS = 4


@dataclass(eq=False)
class FarLife(Life):
    """An editor's whose daemon is elsewhere: nobody but us starts one."""

    forward: Forward = field(kw_only=True)
    _was_cut: bool = False

    async def strike(self) -> None:
        """Cut the connection, or kill the daemon."""
        self._was_cut = self.report.random.random() < CUT
        if self._was_cut:
            await self._cut()
        else:
            await self.kill()

    async def _cut(self) -> None:
        self.forward.cut(self.report.random.randrange(MOST_BYTES))
        await trio.sleep(UNTIL_CUT)
        self.forward.mend()

    async def recover(self) -> None:
        """The next daemon, or the same one; perhaps not for long."""
        if not self._was_cut:
            await super().recover()
        elif self.report.random.random() < AGAIN:
            await self._cut()

    async def come_back(self) -> None:
        """The next daemon, from us."""
        process = await start(self.forward)
        self.daemons.start_soon(process.wait)


async def start(forward: Forward) -> trio.Process:
    """Start a daemon that answers at the forwarded port as well."""
    settings = f'allowed_hosts = ["127.0.0.1:{forward.port}"]\n'
    starting = await start_daemon(forward.state, settings)
    await starting.ready()
    return starting.process


@asynccontextmanager
async def far(report: Report, name: str, which: str | None = None) -> AsyncGenerator[FarLife]:
    """An editor with its bridge, a daemon and the way there."""
    folder = report.work / name
    folder.mkdir()
    forward = Forward(folder / "state")

    def make(editor: SdkEditor, daemons: trio.Nursery) -> FarLife:
        return FarLife(report, forward.state, editor, daemons, forward=forward)

    async with trio.open_nursery() as nursery:
        await nursery.start(forward.serve)
        first = await start(forward)
        nursery.start_soon(first.wait)
        command = bridge(forward, folder / "own", which)
        async with living(report, forward.state, command, make) as life:
            yield life
        nursery.cancel_scope.cancel()


def bridge(forward: Forward, own: Path, which: str | None) -> Sequence[str]:
    """The command of the bridge, or of a forgetful one."""
    address, token_file = f"ws://127.0.0.1:{forward.port}/acp", forward.state / "token"
    if which is not None:
        return ["-m", "tests.clients.forgetful", which, str(own), address, str(token_file)]
    at = ["--connect", address, "--token-file", str(token_file)]
    return ["-c", MOORAGE, "acp", "--state-dir", str(own), *at]


async def torture(report: Report) -> None:
    """Cut and kill, and then under bridges that forget."""
    async with far(report, "sound") as life:
        for number in range(1, report.rounds + 1):
            await life.round()
            done = f"{life.kills} kills, {life.forward.cuts} cuts"
            report.say(f"{number} rounds, {done}, {life.ends.count('cancelled')} turns cut")
        for problem in life.problems():
            report.violation(problem)
        end = await life.editor.leave()
        report.check((end["left"], end["stderr"]) == (0, ""), f"the bridge ended so: {end}")
    report.check(life.forward.cuts > 0, "nothing was cut: nothing was shown")
    for line in complaints(life.state):
        report.violation(f"the daemon's log: {line}")
    report.figures |= {
        "kills": life.kills,
        "cuts": life.forward.cuts,
        "prompts_answered": len(life.ends),
        "turns_cut": life.ends.count("cancelled"),
        "updates_seen": sum(len(life.editor.updates(session)) for session in life.sessions),
        "blow_to_all_answered": spread(life.waits),
    }
    for which in FORGETFUL:
        await control(report, which)


async def control(report: Report, which: str) -> None:
    """A bridge that forgets, under the same rounds."""
    quiet = Report(report.program, CONTROL_ROUNDS, report.seed, report.work)
    quiet.say = lambda text: None  # type: ignore[method-assign]  # what it finds is expected
    async with far(quiet, which.replace(" ", "-"), which) as life:
        for _ in range(CONTROL_ROUNDS):
            await life.round()
        report.control(which, quiet.violations + life.problems())


if __name__ == "__main__":
    run(PROGRAM, torture)
