"""A budget under more calls than it has, from turns side by side, with kills and crashes between.

A crash is what it is to a disk: the next daemon starts from what was durable at that moment, and
whatever the old one does afterwards has not happened.
"""

import contextlib
import random
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from moorage_daemon.agents.port import CallRefused, Stage, StageClosed
from moorage_daemon.store.memory import MemoryStore
from moorage_daemon.store.port import Change
from moorage_daemon.tools.port import Bench, Report
from moorage_protocol.acp import StopReason
from moorage_protocol.errors import RpcError
from tests.daemon.harness import Daemon, open_daemon
from tests.daemon.ledger.test_grants import ask, create
from tests.daemon.puppet import Lever, LeverArguments, Performance
from tests.daemon.store.faulty import FaultyStore
from tests.daemon.twin import Client


EXTRA = 50  # calls beyond the budget
SESSIONS = 5


class Counted(Lever):
    """A tool that counts how often it really ran, until its daemon has crashed."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.draw = draw
        self.ran = 0
        self.is_alive = True

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        self.ran += self.is_alive
        for _ in range(self.draw.randrange(3)):
            await trio.lowlevel.checkpoint()
        return Report("Done.")


@dataclass(eq=False)
class Round:
    """One budget, spent by as many daemons as it takes; `forgets` is the control arm."""

    seed: int
    forgets: bool = False
    crashes: int = 0
    kills: int = 0
    ran: int = 0
    draw: random.Random = field(init=False)
    budget: int = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.budget = self.draw.randint(1, 30)

    async def play(self) -> None:
        """Spend it; afterwards `ran` says how many calls really ran."""
        store, grant = FaultyStore(MemoryStore()), ""
        for life in range(self.draw.randint(1, 3)):
            tool = Counted(self.draw)
            async with open_daemon(store) as daemon:
                client = await daemon.connect()
                if life == 0:
                    tools = {"tools": None, "budget": {"calls": self.budget}}
                    grant = await create(client, agent="puppet", **tools)
                await self._live(daemon, client, grant, tool)
                tool.is_alive = False
                daemon.store.hold()  # nothing more gets to the disk
                image = await daemon.image()
                daemon.store.release()
            self.ran += tool.ran
            self.crashes += life > 0
            store = await _forgetful(image, grant) if self.forgets else image

    async def _live(self, daemon: Daemon, client: Client, grant: str, tool: Counted) -> None:
        """Have all sessions call at once, and stop looking in the middle of it or at its end."""
        each = -(-(self.budget + EXTRA) // SESSIONS)
        sessions = [await client.new(grant={"grantId": grant}) for _ in range(SESSIONS)]
        performances: list[Performance] = []
        for session in sessions:
            with contextlib.suppress(RpcError):
                client.prompt(session)
                performances.append(await daemon.puppet.next())
        for performance in performances:
            performance.begin(lambda stage: _call_often(stage, tool, each))
        if self.draw.random() < 0.5:
            await self._stall(daemon)
            return  # it crashes before the disk has caught up
        for _ in range(self.draw.randrange(400)):
            await trio.lowlevel.checkpoint()
        if self.draw.random() < 0.3:
            client.start_kill(self.draw.choice(sessions))
            self.kills += 1
        if self.draw.random() < 0.5:
            return  # it crashes here
        with trio.move_on_after(5):
            await client.until(lambda: len(client.of_kind("verdict")) == SESSIONS)

    async def _stall(self, daemon: Daemon) -> None:
        """Let the disk stand still at any moment, and the daemon go on as far as it does then."""
        for _ in range(self.draw.randrange(12)):
            await trio.lowlevel.checkpoint()
        daemon.store.hold()
        for _ in range(self.draw.randrange(200)):
            await trio.lowlevel.checkpoint()


async def _call_often(stage: Stage, tool: Counted, times: int) -> StopReason:
    """Call a tool so often, all at once."""

    async def call() -> None:
        with contextlib.suppress(CallRefused, StageClosed):
            await stage.call(tool, LeverArguments())

    async with trio.open_nursery() as nursery:
        for _ in range(times):
            nursery.start_soon(call)
    return StopReason.END_TURN


async def _forgetful(image: FaultyStore, grant: str) -> FaultyStore:
    """The same disk, but for what was used of the grant."""
    stored = await image.inner.load(grant)
    assert stored is not None
    assert stored.head.record is not None
    record = stored.head.record
    fresh = replace(record, spend=replace(record.spend, calls=0), ended=None)
    await image.inner.commit([Change(grant, (), replace(stored.head, record=fresh))])
    return image


async def used(client: Client, grant: str) -> int:
    """How many calls the grant says were made."""
    found: int = (await ask(client, "get", grantId=grant))["used"]["calls"]
    return found
