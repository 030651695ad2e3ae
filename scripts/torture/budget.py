"""Spends budgets of B with B + 50 calls and more at once, and kills the daemon under it.

A round is one budget, on a tree of grants: turns side by side call tools over real sockets, 64
gateways use the same grants from outside, and turns are cancelled, sessions closed, killed and
deleted, and parts of the budget taken back in between. Twenty rounds share a daemon, which dies by
SIGKILL at random moments and comes back on what it left; the rounds alternate between the stores.
What ran is counted in files past the daemon. The control arms are daemons that charge unsoundly.
"""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from scripts.torture.client import open_client
from scripts.torture.daemon import Daemon, complaints, start_daemon
from scripts.torture.purse import Purse, Use, all_uses
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.unsound import FAULTS
from scripts.torture.wire import Carrier, Gone


PROGRAM = Program("budget", __doc__, rounds=1000, quick_rounds=40)

STORES = ("sqlite", "file")
TOGETHER = 20  # rounds on one daemon at once
GATEWAYS = 64
PAUSES = (0.0, 0.2)  # seconds at most between two uses of one gateway, wave by wave
KEPT_FOR = 5  # waves on one state directory
KILLS = (0, 1, 1, 2)  # of a daemon in one wave; without any half of the purses are left alone
MOST_UPTIME = 1.5  # seconds of work before a kill
ANSWERED = 90.0  # seconds until everything is answered that can be
CONTROL_WAVES = 10  # until a fault has to be noticed
SETTINGS = 'store = "{store}:"\n[grants]\nmax_per_agent = 1000\n'


@dataclass(eq=False)
class Waves:
    """The rounds on one store, so many at once; `fault` is the control arm's."""

    report: Report
    store: str
    fault: str | None = None
    together: int = TOGETHER
    gateways: int = GATEWAYS
    kills: int = 0
    starts: list[float] = field(default_factory=list[float])
    past: list[Purse] = field(default_factory=list[Purse])  # of this state directory
    counts: Counter[str] = field(default_factory=Counter[str])
    problems: list[str] = field(default_factory=list[str])
    played: int = 0

    @property
    def _chance(self) -> random.Random:
        return self.report.random

    @property
    def _folder(self) -> Path:
        name = f"{self.store}-{self.fault or 'sound'}-{self.played // KEPT_FOR}"
        return self.report.work / name

    async def one(self, kills: int) -> None:
        """Spend some purses to the end, over one more life of the daemon than it is killed."""
        folder = self._folder
        folder.mkdir(exist_ok=True)
        purses = [
            Purse(
                folder / f"{self.played}-{number}",
                random.Random(self._chance.random()),
                calm=not kills and number % 2 == 0,
            )
            for number in range(self.together)
        ]
        for left in range(kills, -1, -1):
            await self._live(purses, kill=left > 0)
        self._sum_up(purses)
        self.played += 1
        if self.played % KEPT_FOR == 0:
            self._leave(folder)

    async def _live(self, purses: Sequence[Purse], *, kill: bool) -> None:
        """One life of the daemon."""
        program = ("moorage_daemon",) if self.fault is None else (UNSOUND, self.fault)
        settings = SETTINGS.format(store=self.store)
        starting = await start_daemon(self._folder / "state", settings, program=program)
        daemon = await starting.ready()
        self.starts.append(daemon.ready_seconds)
        try:
            await self._open_or_look(daemon, purses)
            with trio.move_on_after(ANSWERED) as patience:
                await self._spend(daemon, purses, kill=kill)
            if patience.cancelled_caught:
                self._wrong("calls are not answered")
            elif not kill:
                await self._settle(daemon, purses)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await daemon.kill()

    async def _open_or_look(self, daemon: Daemon, purses: Sequence[Purse]) -> None:
        """The first life makes the purses, the others look what is left of them."""
        async with trio.open_nursery() as nursery:
            for purse in purses:
                nursery.start_soon(self._open_or_look_at, daemon, purse)

    async def _open_or_look_at(self, daemon: Daemon, purse: Purse) -> None:
        async with open_client(daemon.address, Carrier.UNIX) as client:
            if purse.shares:
                self._wrong(*await purse.look(client))
            else:
                await purse.open(client)

    async def _spend(self, daemon: Daemon, purses: Sequence[Purse], *, kill: bool) -> None:
        uses = all_uses(purses, self._chance)
        pause = self._chance.choice(PAUSES)
        async with trio.open_nursery() as nursery:
            for number, purse in enumerate(purses):
                nursery.start_soon(_spend, daemon, purse, [*Carrier][number % 2])
            for number in range(self.gateways):
                nursery.start_soon(_use, daemon, uses, [*Carrier][number % 2], pause)
            if kill:
                await trio.sleep(self._chance.uniform(0, MOST_UPTIME))
                await daemon.kill()
                self.kills += 1

    async def _settle(self, daemon: Daemon, purses: Sequence[Purse]) -> None:
        async with open_client(daemon.address, Carrier.UNIX) as client:
            for purse in purses:
                self._wrong(*await purse.settle(client))
        if self.fault is None:
            self._wrong(*(f"the log: {line}" for line in complaints(daemon.state)))

    def _sum_up(self, purses: Sequence[Purse]) -> None:
        for purse in purses:
            self.counts += purse.disturbed + Counter(
                calls_tried=purse.tried,
                calls_allowed=purse.budget,
                tools_ran=purse.ran().total(),
                gateway_calls=purse.acknowledged.total(),
                charged_for_nothing=max(0, purse.budget - purse.done()),
                budgets_met=purse.done() == purse.budget,
                undisturbed=purse.calm,
            )
        self.past += purses

    def _leave(self, folder: Path) -> None:
        """Look once more whether something ran late, and begin anew."""
        for purse in self.past:
            self._wrong(*purse.overspent())
        self.past.clear()
        if not self.problems:
            shutil.rmtree(folder)

    def _wrong(self, *problems: str) -> None:
        for problem in problems:
            self.problems.append(problem)
            if self.fault is None:
                self.report.violation(f"{self.store}: {problem}")


UNSOUND = "scripts.torture.unsound"


async def _spend(daemon: Daemon, purse: Purse, carrier: Carrier) -> None:
    with suppress(Gone):
        async with open_client(daemon.address, carrier) as client:
            await purse.spend(client)


async def _use(daemon: Daemon, uses: list[Use], carrier: Carrier, pause: float) -> None:
    with suppress(Gone):
        async with open_client(daemon.address, carrier) as gateway:
            while uses:
                use = uses.pop()
                await trio.sleep(use.purse.chance.uniform(0, pause))
                await use.ask(gateway)


async def torture(report: Report) -> None:
    """Spend all, and then some with unsound daemons."""
    stores = [Waves(report, store) for store in STORES]
    done = 0
    while done < report.rounds:
        waves = stores[done // TOGETHER % len(stores)]
        waves.together = min(TOGETHER, report.rounds - done)
        await waves.one(report.random.choice(KILLS))
        done += waves.together
        kills = sum(each.kills for each in stores)
        report.say(f"{done} rounds, {kills} kills, {len(report.violations)} violations")
    for waves in stores:
        report.figures[waves.store] = {"kills": waves.kills, **waves.counts}
    report.figures["start"] = spread([each for waves in stores for each in waves.starts])
    for fault in FAULTS:
        await control(report, fault)


async def control(report: Report, fault: str) -> None:
    """An unsound daemon under the same, until it was noticed."""
    waves = Waves(report, STORES[0], fault)
    while not waves.problems and waves.played < CONTROL_WAVES:
        await waves.one(report.random.choice(KILLS))
    report.control(fault, waves.problems)
    report.say(f"{fault}: {Counter(waves.problems).most_common(2)}")


if __name__ == "__main__":
    run(PROGRAM, torture)
