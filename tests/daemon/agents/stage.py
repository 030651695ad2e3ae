"""A stage without a session: it keeps what an agent does on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moorage_daemon.agents.port import Compaction, Exchange, ModelCall, Past, Vain
from moorage_daemon.grants.holds import Wish
from moorage_daemon.tools.port import Report
from moorage_protocol.acp import PlanEntry, ToolKind
from moorage_protocol.config import SessionConfig
from moorage_protocol.moorage import Overrides
from moorage_protocol.views import Verification


@dataclass(eq=False)
class HeardStage:
    """`said` and `thought` are pieces in their order; `earlier` are the turns before this one."""

    overrides: Overrides = field(default_factory=Overrides)
    config: SessionConfig = field(default_factory=SessionConfig)
    earlier: Sequence[Exchange] = ()
    cwd: str = "/work"
    said: list[str] = field(default_factory=list[str])
    thought: list[str] = field(default_factory=list[str])
    compactions: list[Compaction] = field(default_factory=list[Compaction])
    calls: list[ModelCall] = field(default_factory=list[ModelCall])
    used: int = 0
    generation: int = 1
    vain: Vain | None = None
    asked_for: int | None = None  # characters of history

    wishes: list[Wish] = field(default_factory=list[Wish])
    most: int | None = None
    dropped: int = 0
    heard: str = ""

    @property
    def text(self) -> str:
        return "".join(self.said)

    async def history(self, characters: int) -> Past:
        self.asked_for = characters
        return Past(self.earlier)

    async def compact(self, compaction: Compaction, call: ModelCall | None) -> None:
        self.compactions.append(compaction)
        self.calls += [call] if call is not None else []

    async def say(self, text: str) -> None:
        self.said.append(text)

    async def think(self, text: str) -> None:
        self.thought.append(text)

    async def begin_answer(self, wish: Wish) -> int | None:
        self.wishes.append(wish)
        return self.most

    def hear_answer(self, text: str) -> None:
        self.heard += text

    def drop_answer(self) -> None:
        self.dropped += 1

    async def tell_usage(self, call: ModelCall) -> None:
        self.calls.append(call)

    async def plan(self, entries: Sequence[PlanEntry]) -> None:
        raise NotImplementedError

    async def report(self, verification: Verification) -> None:
        raise NotImplementedError

    async def ask(self, title: str, kind: ToolKind = ToolKind.OTHER) -> bool:
        raise NotImplementedError

    async def call(self, tool: object, arguments: object) -> Report:
        raise NotImplementedError
