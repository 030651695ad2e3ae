"""An agent that does what a test says, when it says it, and tools that wait to be let go."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from moorage_daemon.agents.port import Prompt, Stage
from moorage_daemon.grants.calls import Call, Words
from moorage_daemon.tools.port import Bench, Report
from moorage_protocol.acp import (
    AvailableCommand,
    StopReason,
    ToolCallContent,
    ToolCallLocation,
    ToolKind,
)
from tests.daemon.twin import PATIENCE


Act = Callable[[Stage], Awaitable[object]]
MAX_ACTS = 100


class Cut(Exception):
    """The turn ended before, or while, the agent did what the test wanted."""


@dataclass(eq=False)
class Performance:
    """One turn of the puppet: it does one act after the other, in the turn's own task."""

    prompt: Prompt
    stage: Stage
    was_cancelled: bool = False
    is_over: bool = False
    released: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._acts, self._script = trio.open_memory_channel[Act](MAX_ACTS)

    async def perform(self) -> StopReason:
        try:
            while True:
                act = await self._script.receive()
                ending = await act(self.stage)
                if isinstance(ending, StopReason):
                    return ending
        except trio.Cancelled:
            self.was_cancelled = True
            raise
        finally:
            self.is_over = True
            self._script.close()

    def begin(self, act: Act) -> trio.Event:
        """Have the agent do something; the event is set when it is done, or never."""
        done = trio.Event()

        async def run(stage: Stage) -> object:
            ending = await act(stage)
            done.set()
            return ending

        try:
            self._acts.send_nowait(run)
        except trio.BrokenResourceError:
            raise Cut from None
        return done

    async def do(self, act: Act) -> None:
        """Have the agent do something, and wait for it."""
        with trio.fail_after(PATIENCE):
            await self.begin(act).wait()

    async def say(self, text: str) -> None:
        await self.do(saying(text))

    def finish(self, reason: StopReason = StopReason.END_TURN) -> None:
        """Have the agent return."""
        self.begin(lambda _: _returning(reason))

    def fail(self, error: Exception) -> None:
        """Have the agent raise."""
        self.begin(lambda _: _raising(error))

    def dig_in(self) -> None:
        """Have the agent ignore every cancellation until `released` is set."""
        self.begin(lambda _: self._shielded())

    def shrug(self) -> None:
        """Have the agent do the same, and return then as if nothing had been asked."""
        self.begin(lambda _: self._shrugging())

    async def _shrugging(self) -> StopReason:
        await self._shielded()
        return StopReason.END_TURN

    async def _shielded(self) -> None:
        with trio.CancelScope(shield=True):
            await self.released.wait()


def saying(text: str) -> Act:
    """The act of streaming a piece of text."""
    return lambda stage: stage.say(text)


async def _returning(reason: StopReason) -> StopReason:
    return reason


async def _raising(error: Exception) -> None:
    raise error


class Puppet:
    """Every turn waits for the test."""

    commands: tuple[AvailableCommand, ...] = ()

    def __init__(self, name: str = "puppet") -> None:
        self.name = name
        self.performances: list[Performance] = []
        self._taken = 0
        self._began = trio.Event()

    async def run(self, prompt: Prompt, stage: Stage) -> StopReason:
        performance = Performance(prompt, stage)
        self.performances.append(performance)
        self._began.set()
        return await performance.perform()

    async def next(self) -> Performance:
        """The first turn that began and was not taken yet."""
        with trio.fail_after(PATIENCE):
            while len(self.performances) == self._taken:
                self._began = trio.Event()
                await self._began.wait()
        self._taken += 1
        return self.performances[self._taken - 1]

    def let_go(self) -> None:
        """End every performance that ignores its cancellation."""
        for performance in self.performances:
            performance.released.set()


class LeverArguments(msgspec.Struct, frozen=True):
    label: str = "A"


class Crank:
    """What a lever runs outside the daemon."""

    pid = 4711

    def __init__(self) -> None:
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1


class Lever:
    """A tool that starts something and works until `release` is set."""

    name = "Lever"

    def __init__(
        self,
        *,
        asks: bool = False,
        holds: bool = False,
        kind: ToolKind = ToolKind.EXECUTE,
        paths: tuple[str, ...] = (),
    ) -> None:
        self.asks = asks
        self.kind = kind
        self.paths = paths
        self.pulled: list[str] = []
        self.cranks: list[Crank] = []
        self.release = trio.Event()
        if not holds:
            self.release.set()

    def title(self, arguments: LeverArguments) -> str:
        return f"pull {arguments.label}"

    def locations(self, arguments: LeverArguments, cwd: str) -> list[ToolCallLocation]:
        return [ToolCallLocation(path=path) for path in self.paths]

    def about(self, arguments: LeverArguments, cwd: str) -> Call:
        return Call(self.name, Words(arguments.label))

    async def preview(self, arguments: LeverArguments, bench: Bench) -> Sequence[ToolCallContent]:
        return ()

    async def run(self, arguments: LeverArguments, bench: Bench) -> Report:
        self.pulled.append(arguments.label)
        crank = Crank()
        self.cranks.append(crank)
        bench.running.add(crank)
        try:
            await self.release.wait()
        finally:
            bench.running.discard(crank)
        return Report("Pulled.")

    def call(self, label: str = "A") -> Act:
        """The act of calling it."""
        return lambda stage: stage.call(self, LeverArguments(label))
