"""What an agent is to a turn, and what a turn offers an agent."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from moorage_daemon.grants.holds import Wish
from moorage_daemon.tools.port import Report, Tool
from moorage_protocol.acp import AvailableCommand, ContentBlock, PlanEntry, StopReason, ToolKind
from moorage_protocol.config import SessionConfig
from moorage_protocol.moorage import Overrides, TokenUsage
from moorage_protocol.views import Verification


A = TypeVar("A", bound=msgspec.Struct)


class AgentFailed(Exception):
    """An agent could not go on; `code` is the stable word of the turn's verdict."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(problem)
        self.code = code


class StageClosed(Exception):
    """The turn was ended without this agent: nothing it still does counts."""


class CallRefused(Exception):
    """A tool call that was not made: the answer was no."""


class Prompt(msgspec.Struct, frozen=True):
    """What the user said, block by block.

    `secrets` are the texts among them that nothing may tell but to who has to know for the turn.
    `meta` is the object that the client attached to the prompt, without what is ours in it: an
    agent that asks others passes it on, as trace context goes that way.
    """

    blocks: Sequence[ContentBlock]
    text: str
    meta: msgspec.Raw | None = None
    secrets: tuple[str, ...] = ()


class Exchange(msgspec.Struct, frozen=True):
    """An earlier turn: what was asked, and what was answered until it ended, "" for nothing."""

    prompt: str
    answer: str
    generation: int = 0

    @property
    def size(self) -> int:
        """Characters of it."""
        return len(self.prompt) + len(self.answer)


class Past(msgspec.Struct, frozen=True):
    """What was said in a session before a turn.

    `summary` stands for the turns up to `upto`; where there is none it is "", and 0. The exchanges
    since are the newest that fit, oldest first; `is_whole` where that is all of them. It `is_cut`
    where turns that nothing stands for are not kept any more.
    """

    exchanges: Sequence[Exchange] = ()
    summary: str = ""
    upto: int = 0
    is_whole: bool = True
    is_cut: bool = False

    @property
    def size(self) -> int:
        """Characters of all of it."""
        return len(self.summary) + sum(exchange.size for exchange in self.exchanges)


class Compaction(msgspec.Struct, frozen=True):
    """A summary that is to stand for the turns up to `upto` from here on.

    Without one it was tried in vain, and `code` is the stable word for why. `fill` is how full the
    context was, 1 for full.
    """

    upto: int
    summary: str | None = None
    code: str | None = None
    fill: float = 0.0


class Vain(msgspec.Struct, frozen=True):
    """The last try to sum up came to nothing: in that turn, when the context was so full."""

    generation: int
    fill: float


class ModelCall(msgspec.Struct, frozen=True):
    """One answer of a model: what it took, and how many tokens fit.

    `micros` are millionths of a US dollar. None says in both that nobody knows. An answer with a
    `purpose` was given to the daemon, and says nothing of how full the conversation is.
    """

    provider: str
    model: str
    tokens: TokenUsage
    micros: int | None = None
    window: int | None = None
    purpose: str | None = None


class Stage(Protocol):
    """What an agent has during one turn.

    Every method may wait, and is where cancellation reaches the agent. `StorageError` from any of
    them means that the turn cannot be recorded: let it pass.
    """

    @property
    def cwd(self) -> str:
        """The session's working directory, absolute."""
        ...

    @property
    def overrides(self) -> Overrides:
        """The model settings of this turn; they do not change while it runs."""
        ...

    @property
    def config(self) -> SessionConfig:
        """How the session was set up when this turn began."""
        ...

    @property
    def used(self) -> int:
        """Tokens in the context of the model that answered last; 0 where nobody knows."""
        ...

    async def history(self, characters: int) -> Past:
        """What was said in the session before this turn, as much as fits."""
        ...

    @property
    def generation(self) -> int:
        """The number of the turn."""
        ...

    @property
    def vain(self) -> Vain | None:
        """The last try to sum up, if it came to nothing; a session that was parked forgets it."""
        ...

    async def compact(self, compaction: Compaction, call: ModelCall | None) -> None:
        """Put a summary in the place of the first turns, durably, with what it took; see `Past`."""
        ...

    async def say(self, text: str) -> None:
        """Stream a piece of the answer."""
        ...

    async def think(self, text: str) -> None:
        """Stream a piece of reasoning."""
        ...

    async def plan(self, entries: Sequence[PlanEntry]) -> None:
        """Show the plan, whole each time."""
        ...

    async def begin_answer(self, wish: Wish) -> int | None:
        """Have held what an answer of a model may take, before it is asked for.

        Gives the most tokens that it may have, None where no budget says. Where none is left the
        turn ends with that. What it took is told next, or that it was not given; an answer of which
        neither is told counts with what was asked and heard.
        """
        ...

    def hear_answer(self, text: str) -> None:
        """A piece of that answer came which is not said in the turn."""
        ...

    def drop_answer(self) -> None:
        """That answer was not given: nothing of it was taken."""
        ...

    async def tell_usage(self, call: ModelCall) -> None:
        """What an answer of a model took; told for each of them."""
        ...

    async def report(self, verification: Verification) -> None:
        """Put on record what was verified."""
        ...

    async def ask(self, title: str, kind: ToolKind = ToolKind.OTHER) -> bool:
        """Put a question to the user; whether the answer was yes."""
        ...

    async def call(self, tool: Tool[A], arguments: A) -> Report:
        """Call a tool: shown, asked for if the tool asks, recorded, then run.

        Raises `CallRefused` when the user said no.
        """
        ...


class Agent(Protocol):
    """Answers prompts. One object serves all sessions: what belongs to a turn is on its stage."""

    @property
    def name(self) -> str:
        """What `session/new` and the settings call it."""
        ...

    @property
    def commands(self) -> Sequence[AvailableCommand]:
        """Slash commands that clients offer their users."""
        ...

    async def run(self, prompt: Prompt, stage: Stage) -> StopReason:
        """Answer one prompt; stops at once when its scope is cancelled."""
        ...
