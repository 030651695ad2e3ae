"""Kills the daemon in mid-turn with SIGKILL, and compares what clients saw with what is left.

Each round several sessions are at work: two stream, one of them with prompts queued, one runs a
command, one takes short turns. What is stored is read while the next daemon stands right before its
ready line. Now and then that daemon is killed in its recovery first. First all rounds have the
database, then as many the store of files.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import trio

from scripts.torture.client import Client, Pending, Refused, open_client
from scripts.torture.daemon import Daemon, complaints, start_daemon
from scripts.torture.ledger import Json, Ledger
from scripts.torture.leftovers import marked, until_gone
from scripts.torture.report import Program, Report, run, spread
from scripts.torture.stored import StoredSession, read_database, read_files
from scripts.torture.wire import Carrier, Gone


PROGRAM = Program("crash", __doc__, rounds=50, quick_rounds=5)

MOST_UPTIME = 0.6  # seconds of work before the kill
READY = 1.0  # seconds from the start of a daemon to its ready line
ANSWER = 5.0  # seconds for a turn of one word after the restart
RECOVERY_KILLS = 0.2  # of the rounds: the next daemon is killed too, before it is ready
MOST_RECOVERY = 0.25  # seconds until that
Stored = dict[str, StoredSession]
STORES: dict[str, Callable[[Path], Stored]] = {"sqlite": read_database, "file": read_files}


@dataclass(eq=False)
class Work:
    """What one round has going. `told` is by client and session."""

    marker: str = field(default_factory=lambda: f"tortured-{uuid4().hex}")
    ledgers: list[dict[str, Ledger]] = field(default_factory=list[dict[str, Ledger]])
    answers: dict[str, list[Pending]] = field(default_factory=dict[str, list[Pending]])
    tools: int = 0  # processes of the command when the daemon was killed

    @property
    def sessions(self) -> list[str]:
        """All sessions of the round."""
        return list(self.answers)

    def told(self, session: str) -> list[Ledger]:
        """What each client was told of it."""
        return [found[session] for found in self.ledgers if session in found]


# ---- one round up to the kill


@asynccontextmanager
async def at_work(report: Report, daemon: Daemon) -> AsyncGenerator[Work]:
    """A daemon with turns of every kind under way, seen by two clients."""
    work = Work()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_client(daemon.address, carrier))
            for carrier in Carrier
        ]
        work.ledgers = [client.ledgers for client in clients]
        nursery = await stack.enter_async_context(trio.open_nursery())
        for number, texts in enumerate(_programme(work.marker)):
            client, other = clients[number % 2], clients[1 - number % 2]
            session = await client.new(str(report.work))
            other.ledger(session).last = 1
            await other.attach(session, 1)
            work.answers[session] = [await client.prompt(session, text) for text in texts]
        session = await clients[0].new(str(report.work))
        work.answers[session] = []
        nursery.start_soon(_short_turns, clients[0], session, work.answers[session])
        yield work
        with trio.fail_after(ANSWER):  # they read what was on its way to them
            for client in clients:
                await client.gone.wait()
        nursery.cancel_scope.cancel()


def _programme(marker: str) -> list[list[str]]:
    return [
        ["/stream 100000 0.0005", "/stream 50", "second in the queue"],
        ["/stream 10000000"],
        [f"/run : {marker}; setsid sh -c 'sleep 60; : {marker}'"],
    ]


async def _short_turns(client: Client, session: str, answers: list[Pending]) -> None:
    with suppress(Gone):
        while True:
            answers.append(await client.prompt(session, "short"))
            await answers[-1].result()


# ---- what has to hold


def judge(work: Work, stored: Stored) -> list[str]:
    """What is wrong with the log of one round, as it was found before the ready line."""
    wrong: list[str] = []
    for session in work.sessions:
        if session not in stored:
            wrong.append(f"{session}: it is lost")
            continue
        found = stored[session]
        wrong += found.problems()
        for told in work.told(session):
            wrong += told.problems + told.compare(found.log, whole=False)
        wrong += _judge_verdicts(work, found)
    return wrong


def _judge_verdicts(work: Work, found: StoredSession) -> list[str]:
    session, wrong = found.log.session, list[str]()
    told = set[int]().union(*(ledger.verdicts for ledger in work.told(session)))
    for verdict in found.verdicts:
        cut = verdict.get("cause") == "daemon_restart"
        if cut == (verdict["outcome"] == "completed") or (cut and verdict["generation"] in told):
            wrong.append(f"{session}: an odd verdict: {verdict}")
    return wrong + _judge_answers(work, found)


def _judge_answers(work: Work, found: StoredSession) -> list[str]:
    """An answered prompt has that very verdict."""
    session, wrong = found.log.session, list[str]()
    verdicts = {verdict["generation"]: verdict for verdict in found.verdicts}
    for pending in work.answers[session]:
        if pending.answer is None:
            continue
        said: Json = (pending.answer.result or {}).get("_meta", {}).get("moorage", {})
        verdict = verdicts.get(said.get("generation"), {})
        if pending.answer.error is not None or verdict.get("outcome") != said.get("outcome"):
            wrong.append(f"{session}: answered {pending.answer}, recorded {verdict}")
    return wrong


def cut_turns(work: Work, stored: Stored) -> int:
    """How many turns of the round the restart has ended."""
    mine = [stored[session] for session in work.sessions if session in stored]
    return sum(v.get("cause") == "daemon_restart" for found in mine for v in found.verdicts)


# ---- after the restart


def settings(store: str) -> str:
    """The daemon's, with that store."""
    return f'store = "{store}:"\n'


async def restart(
    report: Report, state: Path, store: str, read: Callable[[Path], Stored]
) -> tuple[Daemon, Stored, float]:
    """The next daemon, what was stored before its ready line, and when that was read."""
    if report.random.random() < RECOVERY_KILLS:
        doomed = await start_daemon(state, settings(store), gagged=True)
        await trio.sleep(report.random.uniform(0, MOST_RECOVERY))
        await doomed.kill()
    starting = await start_daemon(state, settings(store), gagged=True)
    await starting.until_published()
    published = trio.current_time()
    stored, at = read(state), time.time()
    aside = trio.current_time() - published
    return await starting.ready(aside=aside), stored, at


async def go_on(report: Report, daemon: Daemon, work: Work, before: float) -> None:
    """Every client comes back to every session, reads on where it was, and the session works."""
    for carrier, ledgers in zip(Carrier, work.ledgers, strict=True):
        async with open_client(daemon.address, carrier, ledgers=ledgers) as client:
            for session in work.sessions:
                await _go_on(report, client, session, before)


async def _go_on(report: Report, client: Client, session: str, before: float) -> None:
    ledger = client.ledger(session)
    ledger.last = max(ledger.last, 1)
    await client.attach(session, ledger.last)
    records = (await client.call("_moorage/session/turns", {"sessionId": session}))["turns"]
    cut = [r for r in records if r["verdict"].get("cause") == "daemon_restart"]
    late = [r for r in cut if r["endedAt"] > before]
    report.check(not late, f"{session}: verdicts after the ready line: {late}")
    with trio.move_on_after(ANSWER) as patience:
        answer = await (await client.prompt(session, "and now?")).result()
        report.check(answer["stopReason"] == "end_turn", f"{session}: then answered {answer}")
    report.check(not patience.cancelled_caught, f"{session}: no answer after the restart")
    log = await client.log(session)
    del log.told[1]
    for problem in ledger.problems + ledger.compare(log, whole=True):
        report.violation(f"after the restart: {problem}")


# ---- the whole of it


@dataclass(eq=False)
class Crashes:
    """The rounds, and what is measured in them."""

    report: Report
    store: str
    ready: list[float] = field(default_factory=list[float])
    gone: list[float] = field(default_factory=list[float])
    cut: int = 0
    seen: int = 0
    past: list[Work] = field(default_factory=list[Work])

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.report.work / self.store

    async def run(self) -> None:
        """All rounds, and in the end every session once more."""
        daemon = await (await start_daemon(self.state, settings(self.store))).ready()
        for number in range(1, self.report.rounds + 1):
            daemon = await self._round(daemon)
            self.report.say(
                f"{self.store}: {number} kills, {self.cut} turns cut, "
                f"ready in {self.ready[-1]:.2f} s"
            )
        await self._look_back(daemon)
        await daemon.kill()
        for line in complaints(self.state):
            self.report.violation(f"the daemon's log: {line}")

    async def _round(self, daemon: Daemon) -> Daemon:
        work, killed = await work_and_kill(self.report, daemon)
        (left,) = await until_gone([work.marker], killed)
        self.gone.append(left.took)
        self.report.check(not left.pids, f"{len(left.pids)} processes of a tool are left")
        read = STORES[self.store]
        daemon, stored, at = await restart(self.report, self.state, self.store, read)
        self.ready.append(daemon.ready_seconds)
        late = daemon.ready_seconds > READY
        self.report.check(not late, f"ready only after {daemon.ready_seconds:.2f} s")
        for problem in judge(work, stored):
            self.report.violation(problem)
        self.cut += cut_turns(work, stored)
        self.seen += sum(len(ledger.told) for found in work.ledgers for ledger in found.values())
        self.report.check(cut_turns(work, stored) > 0, "no turn was cut: nothing was shown")
        if self.report.rounds and not self.past:
            broken_logs(self.report, self.store, work, stored)
        await go_on(self.report, daemon, work, at)
        self.past.append(work)
        return daemon

    async def _look_back(self, daemon: Daemon) -> None:
        """What was told in any round is still there after all of them."""
        stored = STORES[self.store](daemon.state)
        for work in self.past:
            for session in work.sessions:
                for told in work.told(session):
                    for problem in told.compare(stored[session].log, whole=False):
                        self.report.violation(f"in the end: {problem}")


async def work_and_kill(report: Report, daemon: Daemon) -> tuple[Work, float]:
    """One round up to the kill, and when that was (`time.monotonic`)."""
    async with at_work(report, daemon) as work:
        await trio.sleep(report.random.uniform(0, MOST_UPTIME))
        work.tools = len(marked(work.marker))
        killed = time.monotonic()
        await daemon.kill()
    return work, killed


# ---- control arms


def broken_logs(report: Report, store: str, work: Work, stored: Stored) -> None:
    """The same judgement on logs in which something is missing or twice."""
    session = work.sessions[0]
    found = stored[session]
    verdict = found.verdicts.pop()
    report.control(f"{store}: a turn without a verdict", judge(work, stored))
    found.verdicts.extend([verdict, verdict])
    report.control(f"{store}: a turn with two verdicts", judge(work, stored))
    found.verdicts.pop()
    seq = work.told(session)[0].last
    kept = found.log.told.pop(seq)
    report.control(f"{store}: a told entry that is lost", judge(work, stored))
    found.log.told[seq] = kept
    assert not judge(work, stored) or report.violations


async def memory_store(report: Report) -> None:
    """A daemon that keeps its sessions in memory loses them, and that has to show."""
    state = report.work / "memory"
    daemon = await (await start_daemon(state, settings("memory"))).ready()
    work, _ = await work_and_kill(report, daemon)
    daemon, stored, _ = await restart(report, state, "memory", read_database)
    report.control("a store in memory", judge(work, stored))
    async with open_client(daemon.address, Carrier.UNIX) as client:
        try:
            await client.attach(work.sessions[0], 1)
        except Refused as refusal:
            report.figures["control_memory_store_answers"] = refusal.code
    await daemon.kill()


async def torture(report: Report) -> None:
    """Kill, and kill again."""
    for store in STORES:
        crashes = Crashes(report, store)
        await crashes.run()
        report.figures[store] = {
            "kills": len(crashes.past),
            "turns_cut": crashes.cut,
            "rounds_with_a_tool": sum(work.tools > 0 for work in crashes.past),
            "entries_seen": crashes.seen,
            "start_to_ready": spread(crashes.ready),
            "kill_to_no_process": spread(crashes.gone),
        }
    await memory_store(report)


if __name__ == "__main__":
    run(PROGRAM, torture)
