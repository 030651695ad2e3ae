"""A turn and who stopped it.

Everything that changes together lives in this one object; no map anywhere is keyed by session or
generation. The cause is set once: the first one wins, later ones are noted beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import trio

from moorage_daemon.agents.port import Prompt
from moorage_daemon.store.model import VerdictBody
from moorage_daemon.tools.client import Client
from moorage_daemon.turn.verdict import Ending, Raised, Request
from moorage_protocol.config import SessionConfig
from moorage_protocol.moorage import (
    AlsoRequested,
    CancelOutcome,
    Cause,
    Overrides,
    TokenUsage,
    ToolCallCounts,
)


MAX_NOTED = 64  # later requests to stop beside the first: a verdict has to fit one message


@dataclass(eq=False)
class Turn:
    """One prompt on its way to a verdict.

    `generation` is its number in the session, `admitted_at` the entry of its admission. `by` is
    the TUI that prompted, `origin` the client, `client` what that lends. `stirred` is set when the
    agent has ended or a cause was set: the moment to look. `settled` is set when the verdict is
    durable.
    """

    generation: int
    prompt: Prompt
    by: str
    origin: str
    queued_at: float
    admitted_at: int
    limit: float = 0.0  # seconds it may run; 0 is no limit
    prompt_id: str | None = None
    client: Client | None = None
    overrides: Overrides = field(default_factory=Overrides)
    config: SessionConfig = field(default_factory=SessionConfig)
    content: list[msgspec.Raw] = field(default_factory=list[msgspec.Raw])  # until it starts
    ready_at: int = 0  # the entry that must be durable before the agent starts
    started_at: float | None = None
    cancel_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    cause: Cause | None = None
    requested_by: str | None = None
    axis: str | None = None  # of a budget that was used up, if that is the cause
    also_requested: list[AlsoRequested] = field(default_factory=list[AlsoRequested])
    ending: Ending | None = None
    verdict: VerdictBody | None = None
    verdict_seq: int = 0
    usage: TokenUsage | None = None
    tool_calls: ToolCallCounts = field(default_factory=ToolCallCounts)
    stirred: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    settled: trio.Event = field(default_factory=trio.Event)
    watchers: list[Callable[["Turn"], None]] = field(default_factory=list[Callable[["Turn"], None]])

    def request_cancel(
        self, cause: Cause, by: str, at: float, axis: str | None = None
    ) -> CancelOutcome:
        """Ask the turn to stop. Synchronous: nothing happens between the test and the act."""
        if self.verdict is not None:
            return CancelOutcome.FINISHED
        if self.cause is not None:
            self._note(AlsoRequested(cause=cause, by=by, at=at))
            return CancelOutcome.ALREADY
        self.cause, self.requested_by, self.axis = cause, by, axis
        self.cancel_scope.cancel(reason=cause)
        self.stirred.set()
        return CancelOutcome.FIRED

    def _note(self, later: AlsoRequested) -> None:
        """Note a later request; of very many only those with a cause that is not there yet."""
        noted = self.also_requested
        if len(noted) < MAX_NOTED or later.cause not in {request.cause for request in noted}:
            noted.append(later)

    @property
    def request(self) -> Request:
        """Who asked it to stop, and why."""
        return Request(self.cause, self.requested_by, self.also_requested, self.axis)

    def end(self, ending: Ending) -> None:
        """The agent's part is over. What an abandoned agent does later changes nothing."""
        if self.ending is None:
            self.ending = ending
        self.ended.set()
        self.stirred.set()

    def fail(self, code: str, why: str) -> None:
        """End the turn without its agent, which is stopped; the first end stays."""
        self.end(Raised(code))
        self.cancel_scope.cancel(reason=why)

    def conclude(self, verdict: VerdictBody, seq: int) -> None:
        """The verdict is written as entry `seq`; once."""
        assert self.verdict is None, "a turn has one verdict"
        self.verdict, self.verdict_seq = verdict, seq
        watchers, self.watchers = self.watchers, []
        for tell in watchers:
            tell(self)

    def is_settled(self, _: object) -> None:
        """The verdict is durable, or never will be."""
        self.settled.set()

    def watch(self, tell: Callable[["Turn"], None]) -> None:
        """Call back when the verdict is written."""
        if self.verdict is not None:
            tell(self)
        else:
            self.watchers.append(tell)

    def unwatch(self, tell: Callable[["Turn"], None]) -> None:
        """Call back no more."""
        if tell in self.watchers:
            self.watchers.remove(tell)
