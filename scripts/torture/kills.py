"""Kills a daemon's core with SIGKILL at random moments, and looks for what was told.

Each round is one kill of a core on each store. Several sessions stream, take short turns and come
and go until then; the store is the same for some rounds, so each kill also hits what earlier ones
left. Afterwards all that was told in any of them has to be there.
"""

import logging
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from moorage_daemon.store.port import StoreError
from scripts.torture.client import Client, Refused
from scripts.torture.report import Program, Report, run
from scripts.torture.sitting import STORES, Sitting, judge, read_left, scribe
from scripts.torture.wire import Gone


PROGRAM = Program("kills", __doc__, rounds=200, quick_rounds=6)

KEPT_FOR = 10  # rounds on one store
MOST_UPTIME = 0.5  # seconds of work before the kill
STREAMS = 3  # sessions with one long turn each
CONTROLS = 3  # kills of a store that promises too much
SAY_EVERY = 20


async def work(client: Client, sitting: Sitting) -> None:
    """Keep sessions at work until the connection ends."""
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS):
            nursery.start_soon(_until_gone, partial(_stream, client, sitting))
        nursery.start_soon(_until_gone, partial(_short_turns, client, sitting))
        nursery.start_soon(_until_gone, partial(_come_and_go, client, sitting))


async def _until_gone(act: Callable[[], Awaitable[None]]) -> None:
    with suppress(Gone):
        await act()


async def _stream(client: Client, sitting: Sitting) -> None:
    session = await client.new(str(sitting.folder))
    sitting.new.append(session)
    sitting.prompts.append((session, await client.prompt(session, "/stream 100000 0.0005")))


async def _short_turns(client: Client, sitting: Sitting) -> None:
    session = await client.new(str(sitting.folder))
    sitting.new.append(session)
    while True:
        pending = await client.prompt(session, "short")
        sitting.prompts.append((session, pending))
        await pending.result()


async def _come_and_go(client: Client, sitting: Sitting) -> None:
    while True:
        session = await client.new(str(sitting.folder))
        sitting.new.append(session)
        sitting.prompts.append((session, await client.prompt(session, "/stream 1000 0.001")))
        sitting.doomed.append(session)
        await client.call("session/delete", {"sessionId": session})
        sitting.deleted.append(session)
        with suppress(Refused):
            victim = await client.new(str(sitting.folder))
            sitting.new.append(victim)
            answer = await client.call("session/kill", {"sessionId": victim})
            sitting.killed += [victim] if answer["durable"] else []


@dataclass(eq=False)
class Kills:
    """The kills of one store."""

    report: Report
    store: str
    fault: str = "none"
    past: list[Sitting] = field(default_factory=list[Sitting])
    told: int = 0

    async def one(self, folder: Path) -> list[str]:
        """One kill; gives what is wrong afterwards with all that this folder has seen."""
        sitting = Sitting(folder)
        with suppress(Gone):  # that is how it ends
            async with scribe(sitting, self.store, fault=self.fault) as (client, process):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(work, client, sitting)
                    await trio.sleep(self.report.random.uniform(0, MOST_UPTIME))
                    process.send_signal(signal.SIGKILL)
        self.past.append(sitting)
        self.told += sitting.told
        try:
            left = await read_left(self.store, folder / "kept")
        except (StoreError, AssertionError) as problem:
            return [f"what is left cannot be read: {problem!r}"]
        return [wrong for told in self.past for wrong in judge(told, left)]

    async def next_folder(self, number: int) -> Path:
        """Where the kill of that number happens: a fresh folder now and then."""
        folder = self.report.work / f"{self.store}-{self.fault}-{number // KEPT_FOR}"
        if number % KEPT_FOR == 0:
            if self.past and not self.report.violations:
                shutil.rmtree(self.past[0].folder)
            self.past.clear()
        return folder


async def torture(report: Report) -> None:
    """Kill both, and then one that says more than it has done."""
    logging.disable()  # what recovery finds is judged, and expected
    stores = [Kills(report, store) for store in STORES]
    for number in range(report.rounds):
        for kills in stores:
            for problem in await kills.one(await kills.next_folder(number)):
                report.violation(f"{kills.store}, kill {number + 1}: {problem}")
        if number % SAY_EVERY == SAY_EVERY - 1:
            report.say(f"{number + 1} kills of each store, {len(report.violations)} violations")
    for kills in stores:
        report.figures[f"entries_told_{kills.store}"] = kills.told
    for store in STORES:
        hasty = Kills(report, store, "hasty")
        bad = [await hasty.one(report.work / f"hasty-{store}-{n}") for n in range(CONTROLS)]
        report.control(f"{store}, hasty", any(bad))
    report.figures["kills_of_each_store"] = report.rounds


if __name__ == "__main__":
    run(PROGRAM, torture)
