"""One client stops reading while a turn streams: nobody else may notice.

A round is a chunk of the streamed turn. The same turn runs without and with a stalled client: its
duration, what other clients see meanwhile, and the daemon's memory are compared. Then the stalled
client cancels a turn of its own without reading, somebody kills another, and in the end it reads
on and gets everything in order.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from scripts.torture.client import Client, open_client
from scripts.torture.daemon import Daemon, complaints, running_daemon
from scripts.torture.ledger import Ledger, streamed
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.wire import Carrier


PROGRAM = Program("stall", __doc__, rounds=1_000_000, quick_rounds=100_000)

MEMORY = 8 * 1024  # KiB that one stalled client may cost
SLOWER = 1.5  # times the duration without it; two runs of the same turn differ by a third
NOISE = 1.0  # seconds on top, for turns that take less than that
DELAY = 0.05  # seconds that a bystander's turns may take longer at the 99th percentile
ACT = 1.0  # seconds for a cancel or a kill to end a turn
WARM_UP = 20_000  # chunks before anything is measured
SMALL_BUFFER = 4096  # bytes in the kernel of who does not read
BETWEEN = 0.02  # seconds between the bystander's turns
ENDLESS = "/stream 10000000"
HELD = 24  # prompts of 1 MiB that the daemon is made to keep, in the control arm


@dataclass(frozen=True)
class Figures:
    """One run. Times are seconds, memory is KiB, both of the one big turn."""

    turn: float
    watched: float  # until the last chunk was read by somebody else
    bystander: list[float]
    peak_growth: int
    rest_growth: int

    def told(self) -> dict[str, object]:
        """As they are printed."""
        return {
            "turn_s": round(self.turn, 2),
            "watched_s": round(self.watched, 2),
            "bystander": spread(self.bystander),
            "peak_growth_kib": self.peak_growth,
            "rest_growth_kib": self.rest_growth,
        }


@dataclass(eq=False)
class Scene:
    """A daemon with a prompter, a watcher on the other carrier, and a bystander."""

    report: Report
    daemon: Daemon
    prompter: Client
    watcher: Client
    bystander: Client
    session: str = ""
    bystander_turns: list[float] = field(default_factory=list[float])

    async def prepare(self) -> None:
        """A session that both follow, and a first turn."""
        self.session = await self.new_watched()
        await (await self.prompter.prompt(self.session, f"/stream {WARM_UP}")).result()

    async def new_watched(self) -> str:
        """A new session that the watcher follows too."""
        session = await self.prompter.new(str(self.report.work))
        self.watcher.ledger(session).last = 1
        await self.watcher.attach(session, 1)
        return session

    async def measure(self, chunks: int) -> Figures:
        """The big turn."""
        self.daemon.forget_peak()
        before = self.daemon.memory()
        async with self._bystanding():
            began = trio.current_time()
            prompt = await self.prompter.prompt(self.session, f"/stream {chunks}")
            await prompt.result()
            turn = prompt.answered_at - began
            await self.watcher.until(lambda: 2 in self.watcher.ledger(self.session).verdicts)
            watched = trio.current_time() - began
        after = self.daemon.memory()
        return Figures(
            turn,
            watched,
            self.bystander_turns,
            peak_growth=after["VmHWM"] - before["VmRSS"],
            rest_growth=after["VmRSS"] - before["VmRSS"],
        )

    @asynccontextmanager
    async def _bystanding(self) -> AsyncGenerator[None]:
        session = await self.bystander.new(str(self.report.work))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_turns, session)
            yield
            nursery.cancel_scope.cancel()

    async def _take_turns(self, session: str) -> None:
        while True:
            began = trio.current_time()
            prompt = await self.bystander.prompt(session, "hello")
            await prompt.result()
            self.bystander_turns.append(prompt.answered_at - began)
            await trio.sleep(BETWEEN)

    async def check_readers(self, chunks: int) -> None:
        """Prompter and watcher were told the log."""
        log = await self.bystander.log(self.session)
        del log.told[1]
        for name, client in (("prompter", self.prompter), ("watcher", self.watcher)):
            ledger = client.ledger(self.session)
            for problem in ledger.problems + ledger.compare(log, whole=True):
                self.report.violation(f"{name}: {problem}")
            said = ledger.text(2) == streamed(chunks)
            self.report.check(said, f"{name}: the text is not what was streamed")


@asynccontextmanager
async def open_scene(report: Report, name: str) -> AsyncGenerator[Scene]:
    """A daemon of its own for each run."""
    async with (
        running_daemon(report.work / name) as daemon,
        open_client(daemon.address, Carrier.UNIX) as prompter,
        open_client(daemon.address, Carrier.WEBSOCKET) as watcher,
        open_client(daemon.address, Carrier.UNIX) as bystander,
    ):
        scene = Scene(report, daemon, prompter, watcher, bystander)
        await scene.prepare()
        yield scene
        report.check(daemon.is_alive, "the daemon ended")
        for line in complaints(daemon.state):
            report.violation(f"{name}: the daemon's log: {line}")


async def without(report: Report, name: str) -> Figures:
    """The run that the others are compared with."""
    async with open_scene(report, name) as scene:
        figures = await scene.measure(report.rounds)
        await scene.check_readers(report.rounds)
        report.say(f"{name}: {figures.told()}")
        return figures


# ---- with a stalled client


@dataclass(eq=False)
class Stalled:
    """The client that does not read, in its scene."""

    scene: Scene
    client: Client
    carrier: Carrier
    figures: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def report(self) -> Report:
        """Where violations go."""
        return self.scene.report

    async def check_stalled(self) -> None:
        """It did not read, or nothing was shown."""
        ledger = self.client.ledger(self.scene.session)
        last = self.scene.prompter.ledger(self.scene.session).last
        self.figures["entries_it_lags"] = last - ledger.last
        self.report.check(not self.client.gone.is_set(), f"{self.carrier}: it was cut off")
        self.report.check(ledger.last < last / 2, f"{self.carrier}: it was not stalled")

    async def cancel(self) -> str:
        """Start an endless turn and cancel it, reading nothing."""
        session = await self._start_endless()
        ledger = self.scene.watcher.ledger(session)
        began = trio.current_time()
        await self.client.notify("session/cancel", {"sessionId": session})
        await self._until_verdict("cancel", ledger, began, "client_rpc")
        return session

    async def kill(self) -> str:
        """Start an endless turn, reading nothing, and have it killed by somebody else."""
        session = await self._start_endless()
        ledger = self.scene.watcher.ledger(session)
        began = trio.current_time()
        answer = await self.scene.prompter.call("session/kill", {"sessionId": session})
        held = answer["killed"] and answer["durable"] and answer["turns"] == [1]
        self.report.check(held, f"{self.carrier}: the kill was answered {answer}")
        await self._until_verdict("kill", ledger, began, "admin_kill")
        return session

    async def _start_endless(self) -> str:
        session = await self.scene.new_watched()
        self.client.ledger(session).last = 1
        await self.client.start("_moorage/session/attach", {"sessionId": session, "afterSeq": 1})
        await self.client.prompt(session, ENDLESS)
        ledger = self.scene.watcher.ledger(session)
        await self.scene.watcher.until(lambda: len(ledger.text(1)) > 2**16)
        return session

    async def _until_verdict(self, what: str, ledger: Ledger, began: float, cause: str) -> None:
        with trio.move_on_after(ACT):
            await self.scene.watcher.until(lambda: 1 in ledger.verdicts)
        self.figures[f"{what}_ms"] = round((trio.current_time() - began) * 1000, 2)
        verdict = ledger.verdicts.get(1, {})
        well = verdict.get("cause") == cause and verdict.get("outcome") == "cancelled"
        self.report.check(well, f"{self.carrier}: {what}: the verdict is {verdict}")

    async def read_on(self, sessions: list[str]) -> None:
        """Read again, and get what there is, in order."""
        logs = [await self.scene.bystander.log(session) for session in sessions]
        self.client.resume()
        began = trio.current_time()
        for log in logs:
            del log.told[1]
            ledger = self.client.ledger(log.session)
            await self.client.until_seq(ledger, log.last)
            for problem in ledger.problems + ledger.compare(log, whole=True):
                self.report.violation(f"{self.carrier}: reading on: {problem}")
        self.figures["read_on_s"] = round(trio.current_time() - began, 2)
        first = self.client.ledger(sessions[0])
        said = first.text(2) == streamed(self.report.rounds)
        self.report.check(said, f"{self.carrier}: it read another text than was streamed")
        lost = dict(first.told)
        first.told.pop(first.last // 2)
        noticed = first.compare(logs[0], whole=True)
        self.report.control(f"{self.carrier}: an entry it did not get", noticed)
        first.told = lost


async def beside(report: Report, carrier: Carrier) -> Figures:
    """The same turn beside a stalled client."""
    async with (
        open_scene(report, carrier) as scene,
        open_client(scene.daemon.address, carrier, receive_buffer=SMALL_BUFFER) as client,
    ):
        stalled = Stalled(scene, client, carrier)
        client.ledger(scene.session).last = 1
        await client.attach(scene.session, 1)
        client.pause()
        figures = await scene.measure(report.rounds)
        await stalled.check_stalled()
        sessions = [scene.session, await stalled.cancel(), await stalled.kill()]
        await stalled.read_on(sessions)
        await scene.check_readers(report.rounds)
        report.figures[carrier] = {**figures.told(), **stalled.figures}
        report.say(f"{carrier}: {report.figures[carrier]}")
        return figures


def compare(report: Report, carrier: Carrier, figures: Figures, alone: list[Figures]) -> None:
    """What the stalled client cost; the worse run without one is the measure."""
    turn, usual_turn = figures.turn, max(run.turn for run in alone)
    watched, usual_watched = figures.watched, max(run.watched for run in alone)
    growth = excess(figures, alone)
    report.figures[f"{carrier}_vs_alone"] = {
        "turn": round(turn / usual_turn, 2),
        "watched": round(watched / usual_watched, 2),
        "peak_growth_kib": growth,
        "rest_growth_kib": figures.rest_growth - max(run.rest_growth for run in alone),
    }
    in_time = turn <= SLOWER * usual_turn + NOISE
    report.check(in_time, f"{carrier}: the turn took {turn:.2f} s, {usual_turn:.2f} without")
    in_time = watched <= SLOWER * usual_watched + NOISE
    report.check(in_time, f"{carrier}: the watcher had it {watched:.2f}, {usual_watched:.2f} s")
    report.check(growth <= MEMORY, f"{carrier}: memory grew by {growth} KiB more")
    usual = max(spread(run.bystander)["p99_ms"] for run in alone)
    delay = (spread(figures.bystander)["p99_ms"] - usual) / 1000
    report.check(delay <= DELAY, f"{carrier}: a bystander's turns took {delay:.3f} s longer")


def excess(figures: Figures, alone: list[Figures]) -> int:
    """KiB by which the peak grew more than in the runs without a stalled client."""
    return figures.peak_growth - max(run.peak_growth for run in alone)


async def held_memory(report: Report, alone: list[Figures]) -> None:
    """Control arm: a daemon that has to keep some prompts in memory meanwhile."""
    async with open_scene(report, "held") as scene:
        busy = await scene.bystander.new(str(report.work))
        await scene.bystander.prompt(busy, "/sleep 60")

        async def hold() -> None:
            for _ in range(HELD):
                await scene.bystander.prompt(busy, "x" * 2**20)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            figures = await scene.measure(report.rounds // 10)
        growth = excess(figures, alone)
        report.figures["control_held_memory_kib"] = growth
        report.control("memory that is held", growth > MEMORY)


async def torture(report: Report) -> None:
    """Without, with each carrier, without."""
    alone = [await without(report, "alone")]
    found = {carrier: await beside(report, carrier) for carrier in Carrier}
    alone.append(await without(report, "alone-again"))
    report.figures["alone"] = [figures.told() for figures in alone]
    for carrier, figures in found.items():
        compare(report, carrier, figures, alone)
    await held_memory(report, alone)


if __name__ == "__main__":
    run(PROGRAM, torture)
