"""Fills the daemon's disk up while turns run, and gives the space back.

The disk is a small file system in memory, full of somebody else's file; every second round that
file also takes what is freed meanwhile. While it is full new work has to be refused by name, and
what ends work has to work. When there is space again, all has to go on; every second pair of rounds
the daemon is killed while the disk is full. In the end what was told has to be in the log. Four
rounds have the database, the next four the store of files.
"""

import os
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import trio

from scripts.torture.client import Client, Pending, Refused, open_client
from scripts.torture.daemon import Daemon, DaemonFailed, start_daemon
from scripts.torture.ledger import Json
from scripts.torture.leftovers import marked, until_gone
from scripts.torture.report import CannotRun, Program, Report, run, spread
from scripts.torture.stored import StoredSession, read_database, read_journals
from scripts.torture.wire import Carrier


PROGRAM = Program("disk", __doc__, rounds=16, quick_rounds=8)

SIZE = 48  # MiB of the disk
GRACE = 2.0  # seconds; the daemon's own, short so that a round is
SETTINGS = f"grace_seconds = {GRACE:.0f}\ndisk_floor_mb = 0\n"  # to really meet the full disk
STORES = ("sqlite:", "file:")
SLACK = 1.0  # seconds beyond the grace: the daemon looks at the disk four times a second
AT_ONCE = 0.5  # seconds for what does not wait for the disk
RECOVERY = 1.0  # seconds from free space to a turn that works
MOST_BEFORE = 1.0  # seconds of streaming before the disk is filled
FILLING = 60.0  # seconds until the daemon has noticed that its disk is full
BLOCK = 64 * 2**10  # bytes that are written to the disk at once
GREED = 0.005  # seconds between two looks for space that was freed
STORAGE = -31007  # the error that says so


# ---- the disk


@contextmanager
def small_disk(path: Path) -> Generator[None]:
    """A file system of its own at `path`; raises `CannotRun` where that is not allowed."""
    path.mkdir(mode=0o700)
    options = f"size={SIZE}m,mode=700"
    _mount("mount", "-t", "tmpfs", "-o", options, "moorage-torture", str(path))
    try:
        yield
    finally:
        _mount("umount", str(path))


def _mount(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotRun(f"there is no {command[0]}") from None
    if done.returncode:
        raise CannotRun(f"a disk of its own needs root: {done.stderr.partition(chr(10))[0]}")


@dataclass(eq=False)
class Ballast:
    """Somebody else's file on the disk."""

    path: Path

    def fill(self) -> None:
        """Take all the space there is."""
        with self.path.open("ab", buffering=0) as file:
            for size in (BLOCK, 512):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    async def stay_greedy(self) -> None:
        """Take what others free, too."""
        while True:
            self.fill()
            await trio.sleep(GREED)

    def free(self) -> None:
        """Give all of it back."""
        self.path.unlink()


# ---- one round


@dataclass(eq=False)
class Round:
    """A daemon with turns under way on a disk that gets full. `killed` is who was killed, and
    whether the answer called that durable."""

    report: Report
    daemon: Daemon
    client: Client
    watcher: Client
    ballast: Ballast
    marker: str = field(default_factory=lambda: f"tortured-{uuid4().hex}")
    streaming: str = ""
    cancelled: str = ""
    with_tool: str = ""
    idle: str = ""
    pending: list[tuple[str, Pending]] = field(default_factory=list[tuple[str, Pending]])
    ended_at: dict[str, float] = field(default_factory=dict[str, float])  # cancelled or killed
    durable: bool | None = None
    started: bool | None = None  # whether the next daemon started on the full disk
    gone: float = 0.0  # seconds from the kill until no process was left
    full_at: float = 0.0

    async def set_to_work(self) -> None:
        """Start turns that stream, and one that runs a command."""
        self.streaming = await self._begin("/stream 10000000 0.002")
        self.cancelled = await self._begin("/sleep 3600")
        self.with_tool = await self._begin(f"/run : {self.marker}; sleep 60; : {self.marker}")
        self.idle = await self.client.new(str(self.report.work))
        with trio.fail_after(FILLING):
            while not marked(self.marker):  # noqa: ASYNC110 - other processes set no event
                await trio.sleep(GREED)

    async def _begin(self, text: str) -> str:
        session = await self.client.new(str(self.report.work))
        self.watcher.ledger(session).last = 1
        await self.watcher.attach(session, 1)
        self.pending.append((session, await self.client.prompt(session, text)))
        return session

    async def until_full(self) -> None:
        """Fill the disk, and prompt until that is refused, which it is at once."""
        with trio.fail_after(FILLING):
            while self.full_at == 0:
                self.ballast.fill()
                prompt = await self.client.prompt(self.idle, "hello")
                with trio.move_on_after(AT_ONCE / 10):
                    await prompt.done.wait()
                if prompt.code == STORAGE:
                    self.full_at = trio.current_time()
                self.pending.append((self.idle, prompt))

    async def check_full(self) -> None:
        """What has to be refused and what has to work meanwhile."""
        for problem in await unrefused(self.client, self.idle, str(self.report.work)):
            self.report.violation(problem)
        await self._check_reading()
        acts = [self._check_cancel, self._check_kill]  # the first has the reserve
        self.report.random.shuffle(acts)
        for act in acts:
            await act()
        await self._check_pending()
        self.report.check(self.daemon.is_alive, "the daemon ended")

    async def _check_reading(self) -> None:
        for method, params in (
            ("session/list", {}),
            ("_moorage/session/live", {}),
            ("_moorage/session/entries", {"sessionId": self.streaming, "after": 0, "limit": 10}),
        ):
            await self._in_time(method, params, AT_ONCE)
        with trio.fail_after(AT_ONCE):  # a client that comes now reads what there was
            self.watcher.ledger(self.idle).last = 1
            head = (await self.watcher.attach(self.idle, 1))["seq"]
            await self.watcher.until_seq(self.watcher.ledger(self.idle), head)
        status = await self._in_time("_moorage/status", {}, AT_ONCE + GRACE)
        healthy = status.get("store", {}).get("healthy")
        self.report.check(healthy is False, f"full: the status calls the store {healthy}")

    async def _in_time(self, method: str, params: Json, seconds: float) -> Json:
        answer: Json = {}
        with trio.move_on_after(seconds) as patience:
            try:
                answer = await self.client.call(method, params)
            except Refused as refusal:
                self.report.violation(f"full: {method} was refused: {refusal}")
        late = patience.cancelled_caught
        self.report.check(not late, f"full: {method} had no answer after {seconds} s")
        return answer

    async def _check_cancel(self) -> None:
        self.ended_at[self.cancelled] = trio.current_time()
        answer = await self._in_time("session/cancel", self._all(self.cancelled), AT_ONCE)
        self.report.check(answer.get("outcome") == "fired", f"full: the cancel did {answer}")

    def _all(self, session: str) -> Json:
        return {"sessionId": session, "_meta": {"moorage": {"scope": "all"}}}

    async def _check_kill(self) -> None:
        began = time.monotonic()
        self.ended_at[self.with_tool] = trio.current_time()
        params = {"sessionId": self.with_tool, "reason": "the disk is full"}
        kill = await self.client.start("session/kill", params)
        (left,) = await until_gone([self.marker], began)
        self.report.check(not left.pids, "full: the kill left processes")
        self.gone = left.took
        with trio.move_on_after(GRACE + SLACK + SLACK):
            answer = await kill.result()
            self.durable = answer["durable"]
            self.report.check(answer["killed"], f"full: the kill was answered {answer}")
        self.report.check(self.durable is not None, "full: the kill had no answer in time")

    async def _check_pending(self) -> None:
        """Every prompt has its answer within the grace, whatever became of its turn.

        The grace of a turn that did not need the disk begins when it was asked to stop.
        """
        for session, prompt in self.pending:
            due = self.ended_at.get(session, self.full_at) + GRACE + SLACK
            with trio.move_on_at(due):
                await prompt.done.wait()
            in_time = prompt.done.is_set() and prompt.answered_at <= due
            self.report.check(in_time, f"full: prompt {prompt.id} had no answer in the grace")

    async def check_recovery(self) -> float:
        """Free the space; gives the seconds until a turn works."""
        self.ballast.free()
        began = trio.current_time()
        with trio.move_on_after(RECOVERY * 5):
            while await refusal(self.client, self.idle) is not None:  # noqa: ASYNC110 - likewise
                await trio.sleep(GREED)
        took = trio.current_time() - began
        self.report.check(took <= RECOVERY, f"it took {took:.2f} s after the space was free")
        problem = await refusal(self.client, await self.client.new(str(self.report.work)))
        self.report.check(problem is None, f"free again: a new session refuses: {problem}")
        return took

    def check_log(self, stored: dict[str, StoredSession], *, recovered: bool) -> None:
        """What was told is in the log, and no turn has two verdicts or none."""
        for client in (self.client, self.watcher):
            for session, ledger in client.ledgers.items():
                found = stored.get(session)
                self.report.check(found is not None, f"{session}: it is lost")
                if found is not None:
                    problems = found.problems() + ledger.problems
                    for problem in problems + ledger.compare(found.log, whole=False):
                        self.report.violation(f"afterwards: {problem}")
        killed = stored[self.with_tool].life == "killed"
        due = recovered or self.durable
        self.report.check(killed or not due, f"the kill is not recorded; durable: {self.durable}")


async def refusal(client: Client, session: str) -> int | None:
    """Take a short turn; gives the error's code, None if it went well."""
    try:
        await (await client.prompt(session, "hello")).result()
    except Refused as refused:
        return refused.code
    return None


async def unrefused(client: Client, session: str, cwd: str) -> list[str]:
    """What is not refused as a full disk demands."""
    wrong: list[str] = []
    attempts: list[tuple[str, Json]] = [
        ("session/prompt", {"sessionId": session, "prompt": [{"type": "text", "text": "hello"}]}),
        ("session/new", {"cwd": cwd, "mcpServers": []}),
        ("session/configure", {"sessionId": session, "overrides": {"temperature": 1.0}}),
    ]
    for method, params in attempts:
        said: object = "nothing"
        with trio.move_on_after(AT_ONCE):
            try:
                said = await client.call(method, params)
            except Refused as refused:
                said = refused.code
        if said != STORAGE:
            wrong.append(f"full: {method} was answered {said}")
    return wrong


# ---- all rounds


def settings(store: str) -> str:
    """The daemon's, with that store."""
    return f'store = "{store}"\n{SETTINGS}'


async def one_round(report: Report, number: int, recoveries: list[float]) -> Round:
    """One disk from empty to full and back."""
    state = report.work / f"disk-{number}"
    is_greedy, is_crashed = number % 2 == 1, number % 4 > 1
    store = STORES[number // 4 % len(STORES)]
    with small_disk(state):
        async with at_work(report, state, store) as trial:
            if number == 0:
                said = await unrefused(trial.client, trial.idle, str(report.work))
                report.control("a disk that is not full", said)
            await trio.sleep(report.random.uniform(0, MOST_BEFORE))
            await trial.until_full()
            async with trio.open_nursery() as nursery:
                if is_greedy:
                    nursery.start_soon(trial.ballast.stay_greedy)
                await trial.check_full()
                nursery.cancel_scope.cancel()
            if is_crashed:
                await trial.daemon.kill()
                trial.started = await starts(report, state, store)
                trial.ballast.free()
            else:
                recoveries.append(await trial.check_recovery())
                await trial.daemon.kill()
            await trial.client.gone.wait()
            await trial.watcher.gone.wait()
        stored = await restart_and_read(state, store)
        trial.check_log(stored, recovered=not is_crashed)
        if number in (0, 4):  # the first of each store
            stored[trial.streaming].log.told.pop(trial.watcher.ledger(trial.streaming).last)
            lost = trial.watcher.ledger(trial.streaming).compare(
                stored[trial.streaming].log, whole=False
            )
            report.control(f"a told entry that is lost, {store}", lost)
    return trial


@asynccontextmanager
async def at_work(report: Report, state: Path, store: str) -> AsyncGenerator[Round]:
    """A daemon on that disk with turns under way."""
    daemon = await (await start_daemon(state, settings(store))).ready()
    try:
        async with (
            open_client(daemon.address, Carrier.UNIX) as client,
            open_client(daemon.address, Carrier.WEBSOCKET) as watcher,
        ):
            trial = Round(report, daemon, client, watcher, Ballast(state / "ballast"))
            await trial.set_to_work()
            yield trial
    finally:
        with trio.move_on_after(SLACK, shield=True):
            await daemon.kill()


async def starts(report: Report, state: Path, store: str) -> bool:
    """Whether a daemon starts on the full disk; one that does not says why in its last line."""
    starting = await start_daemon(state, settings(store))
    try:
        daemon = await starting.ready()
    except DaemonFailed as failure:
        await starting.process.wait()
        line = str(failure).splitlines()[-1:]
        said = bool(line) and line[0].startswith("mooraged: ")
        report.check(said, f"no start on a full disk, and no word why: {line}")
        report.figures["why_not_started"] = line[:1]
        return False
    await daemon.kill()
    return True


async def restart_and_read(state: Path, store: str) -> dict[str, StoredSession]:
    """The log as the next daemon has it."""
    daemon = await (await start_daemon(state, settings(store))).ready()
    if store == "file:":
        daemon.process.terminate()
        with trio.fail_after(GRACE + FILLING):
            await daemon.process.wait()
        return read_journals(state)
    stored = read_database(state)
    await daemon.kill()
    return stored


async def torture(report: Report) -> None:
    """Fill one disk after the other."""
    if os.geteuid() != 0:
        raise CannotRun("a disk of its own needs root")
    recoveries: list[float] = []
    rounds: list[Round] = []
    for number in range(report.rounds):
        rounds.append(await one_round(report, number, recoveries))
        report.say(f"{number + 1} disks, the kill was durable: {rounds[-1].durable}")
    report.figures["kills_durable"] = sum(trial.durable is True for trial in rounds)
    report.figures["kills_not_durable"] = sum(trial.durable is False for trial in rounds)
    report.figures["started_on_a_full_disk"] = sum(trial.started is True for trial in rounds)
    report.figures["not_started_on_a_full_disk"] = sum(trial.started is False for trial in rounds)
    report.figures["kill_to_no_process"] = spread([trial.gone for trial in rounds])
    report.figures["space_to_turn"] = spread(recoveries)


if __name__ == "__main__":
    run(PROGRAM, torture)
