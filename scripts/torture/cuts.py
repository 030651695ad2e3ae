"""Cuts a client's connection in mid-turn, at any byte, and looks for what it missed.

The client prompts for a stream, is cut (over WebSocket with RST), comes back with the last number
it has seen, and so on; what it was told over all its connections has to be the log. The last thing
it says is a prompt without its end: nothing of that may run.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from scripts.torture.client import Client, open_client, prompt_params, talking
from scripts.torture.daemon import Daemon, complaints, running_daemon
from scripts.torture.ledger import Ledger, streamed
from scripts.torture.report import Program, Report, run
from scripts.torture.wire import Address, Carrier, Gone, Link, open_link


PROGRAM = Program("cuts", __doc__, rounds=200, quick_rounds=20)

CHUNKS = 400  # of one turn
PAUSE = 0.001  # seconds between two of them, so that a turn is long enough to be cut often
MOST_BYTES = 40_000  # read before a cut: less than half of what a turn tells
MOST_AWAY = 0.2  # seconds between a cut and the next connection
CUTS_A_SESSION = 20  # then the next one, so that comparing with a whole log stays cheap
RELEASE = 1.0  # seconds in which the daemon lets go of cut connections


@dataclass(eq=False)
class Victim:
    """One client that is cut again and again; `witness` is never cut."""

    report: Report
    daemon: Daemon
    carrier: Carrier
    witness: Client
    cuts: int = 0
    reattached: int = 0
    missed: int = 0  # entries that came only after a cut

    async def suffer(self) -> None:
        """Be cut as often as the report says."""
        while self.cuts < self.report.rounds:
            await self._one_session(min(CUTS_A_SESSION, self.report.rounds - self.cuts))
            self.report.say(f"{self.carrier}: {self.cuts} cuts")

    async def _one_session(self, cuts: int) -> None:
        session = await self.witness.new(str(self.report.work))
        ledger = Ledger(session, last=1)
        while cuts:
            if await self._follow_and_cut(ledger):
                cuts -= 1
                self.cuts += 1
            await self._compare(ledger, whole=False)
        await self._read_to_the_end(ledger)
        await self._compare(ledger, whole=True)
        await compare_load(self.report, self.daemon.address, self.carrier, ledger)
        for generation, verdict in ledger.verdicts.items():
            said = ledger.text(generation) == streamed(CHUNKS)
            self.report.check(said, f"{session}: turn {generation} said something else: {verdict}")

    async def _follow_and_cut(self, ledger: Ledger) -> bool:
        """Come back, see that a turn runs, be cut; whether that was in mid-turn."""
        before = ledger.last
        with suppress(Gone):
            link = await open_link(self.daemon.address, self.carrier)
            link.budget = self.report.random.randrange(1, MOST_BYTES)
            link.last_words = self._half_a_prompt(link, ledger.session)
            async with talking(link, ledgers={ledger.session: ledger}) as client:
                snapshot = await client.attach(ledger.session, ledger.last)
                self.reattached += 1
                self.missed += snapshot["seq"] - before
                await _prompt_on_and_on(client, ledger)
        await trio.sleep(self.report.random.uniform(0, MOST_AWAY))
        return ledger.is_mid_turn

    def _half_a_prompt(self, link: Link, session: str) -> bytes:
        message = {"method": "session/prompt", "params": prompt_params(session, "half a prompt")}
        whole = link.framing.pack(msgspec.json.encode({"jsonrpc": "2.0", "id": 9, **message}))
        return whole[: self.report.random.randrange(len(whole))]

    async def _read_to_the_end(self, ledger: Ledger) -> None:
        async with open_client(
            self.daemon.address, self.carrier, ledgers={ledger.session: ledger}
        ) as client:
            await client.attach(ledger.session, ledger.last)
            await client.until(lambda: not ledger.is_mid_turn)

    async def _compare(self, ledger: Ledger, *, whole: bool) -> None:
        log = await self.witness.log(ledger.session)
        del log.told[1]  # told by the answer to session/new, which was the witness's
        problems = ledger.problems + log.problems + ledger.compare(log, whole=whole)
        for problem in problems:
            self.report.violation(f"{self.carrier}: {problem}")
        ledger.problems.clear()


async def _prompt_on_and_on(client: Client, ledger: Ledger) -> None:
    """See that a turn runs until the connection ends."""
    while True:
        await client.until(lambda: not ledger.is_mid_turn)
        last = ledger.last
        await client.prompt(ledger.session, f"/stream {CHUNKS} {PAUSE}")
        await client.until_seq(ledger, last + 1)


async def compare_load(report: Report, address: Address, carrier: Carrier, ledger: Ledger) -> None:
    """What `session/load` replays is what was told live."""
    replay = Ledger(ledger.session)
    async with open_client(address, carrier, ledgers={ledger.session: replay}) as client:
        await client.load(ledger.session, str(report.work))
    del replay.told[1]
    for problem in replay.problems + ledger.compare(replay, whole=True):
        report.violation(f"{carrier}: load: {problem}")


# ---- control arms


async def control_arms(report: Report, daemon: Daemon, witness: Client) -> None:
    """The same checks on clients that do it wrongly, and on streams that are wrong."""
    session = await witness.new(str(report.work))
    await (await witness.prompt(session, f"/stream {CHUNKS} {PAUSE}")).result()
    right = await witness.log(session)
    for name, after in (("attach one too early", 9), ("attach one too late", 11)):
        ledger = Ledger(session, last=10)
        async with open_client(daemon.address, Carrier.UNIX, ledgers={session: ledger}) as client:
            await client.attach(session, after)
            await client.until_seq(ledger, right.last)
        report.control(name, ledger.problems)
    log = await witness.log(session)
    lost = log.told.pop(20)
    report.control("told but not in the log", right.compare(log, whole=True))
    report.control("in the log but never told", log.compare(right, whole=True))
    log.told[20] = lost[::-1]
    report.control("told otherwise than in the log", right.compare(log, whole=True))
    report.control("two entries swapped", await swapped(witness, session))


async def swapped(witness: Client, session: str) -> list[str]:
    """What a ledger says when two neighbours come in the wrong order."""
    params = {"sessionId": session, "after": 0, "limit": 100}
    entries = (await witness.call("_moorage/session/entries", params))["entries"]
    entries[4], entries[5] = entries[5], entries[4]
    ledger = Ledger(session)
    for entry in entries:
        ledger.take(entry)
    return ledger.problems


async def torture(report: Report) -> None:
    """Cut a client of each carrier, both at once."""
    async with (
        running_daemon(report.work / "state") as daemon,
        open_client(daemon.address, Carrier.UNIX) as witness,
    ):
        descriptors = open_descriptors(daemon)
        victims = [Victim(report, daemon, carrier, witness) for carrier in Carrier]
        async with trio.open_nursery() as nursery:
            for victim in victims:
                nursery.start_soon(victim.suffer)
        await trio.sleep(RELEASE)
        left = open_descriptors(daemon) - descriptors
        report.check(left <= 0, f"{left} descriptors left {RELEASE} s after the last cut")
        await control_arms(report, daemon, witness)
        for victim in victims:
            report.figures[victim.carrier] = {
                "cuts_in_mid_turn": victim.cuts,
                "reattached": victim.reattached,
                "entries_missed_and_caught_up": victim.missed,
            }
        report.check(daemon.is_alive, "the daemon ended")
        for line in complaints(daemon.state):
            report.violation(f"the daemon's log: {line}")


def open_descriptors(daemon: Daemon) -> int:
    """How many files and sockets it has open."""
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


if __name__ == "__main__":
    run(PROGRAM, torture)
