"""The questions a session has open, and who was asked.

Only an offered option that somebody selects decides, and the first one does. A client that
cancels, fails, or goes away is no longer part of the question, which stays open for the others
and for whoever attaches; only when everybody who was asked has cancelled is the turn cancelled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import trio

from moorage_protocol.acp import PermissionKind, PermissionOption
from moorage_protocol.errors import NotPermitted
from moorage_protocol.moorage import RespondOutcome


class Decision(StrEnum):
    """How a question ended."""

    ALLOWED = "allowed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LET_PASS = "approved_by_timeout"  # nobody answered in time, and that approves

    @property
    def allows(self) -> bool:
        """Whether what was asked about is done."""
        return self in (Decision.ALLOWED, Decision.LET_PASS)


@dataclass(eq=False)
class Ask:
    """One question. `record` writes the answer, and what follows from it, into the log at once.

    With `only` it is put to that TUI and to no other.
    """

    tool_call_id: str
    generation: int
    options: list[PermissionOption]
    record: Callable[[Decision, PermissionOption | None, str | None], None]
    only: str | None = None
    decision: Decision | None = None
    decided: trio.Event = field(default_factory=trio.Event)
    asked: dict[str, bool] = field(default_factory=dict[str, bool])  # connection -> has cancelled

    def settle(self, decision: Decision, option: PermissionOption | None, by: str | None) -> None:
        """End the question; the first end stays."""
        if self.decision is None:
            self.decision = decision
            self.record(decision, option, by)
            self.decided.set()

    def option(self, option_id: str) -> PermissionOption | None:
        """The offered option of that id."""
        return next((o for o in self.options if o.option_id == option_id), None)


@dataclass
class Asks:
    """All questions of a session, by tool call; settled ones are kept for late answers."""

    open: dict[str, Ask] = field(default_factory=dict[str, Ask])
    _settled: dict[str, Decision] = field(default_factory=dict[str, Decision])

    REMEMBERED = 64  # settled questions that a late answer is told about

    def add(self, ask: Ask) -> None:
        """Open a question."""
        self.open[ask.tool_call_id] = ask

    def close(self, ask: Ask) -> None:
        """Take a settled question off the list."""
        self.open.pop(ask.tool_call_id, None)
        if ask.decision is not None:
            self._settled[ask.tool_call_id] = ask.decision
        while len(self._settled) > self.REMEMBERED:
            del self._settled[next(iter(self._settled))]

    def asking(self, tool_call_id: str, connection: str, tui: str) -> Ask | None:
        """Note that a client is asked now; None if the question is settled, or not for it."""
        ask = self.open.get(tool_call_id)
        if ask is None or ask.decision is not None or ask.only not in (None, tui):
            return None
        ask.asked[connection] = False
        return ask

    def select(self, tool_call_id: str, option_id: str, by: str) -> RespondOutcome:
        """Somebody chose an option; raises `NotPermitted` for whom the question is not for."""
        ask = self.open.get(tool_call_id)
        if ask is None:
            return self._late(tool_call_id)
        if ask.decision is not None:
            return RespondOutcome.ALREADY
        if ask.only not in (None, by):
            raise NotPermitted
        option = ask.option(option_id)
        if option is None:
            return RespondOutcome.UNKNOWN
        allowed = option.kind in (PermissionKind.ALLOW_ONCE, PermissionKind.ALLOW_ALWAYS)
        ask.settle(Decision.ALLOWED if allowed else Decision.REJECTED, option, by)
        return RespondOutcome.APPLIED

    def _late(self, tool_call_id: str) -> RespondOutcome:
        match self._settled.get(tool_call_id):
            case None:
                return RespondOutcome.UNKNOWN
            case Decision.TIMED_OUT | Decision.CANCELLED | Decision.LET_PASS:
                return RespondOutcome.EXPIRED
            case _:
                return RespondOutcome.ALREADY

    def cancelled(self, tool_call_id: str, connection: str) -> bool:
        """A client answered `cancelled`; whether everybody who is asked now has."""
        ask = self.open.get(tool_call_id)
        if ask is None or ask.decision is not None or connection not in ask.asked:
            return False
        ask.asked[connection] = True
        return all(ask.asked.values())

    def withdraw(self, tool_call_id: str, connection: str) -> None:
        """A client can no longer answer: it is not part of the question any more."""
        ask = self.open.get(tool_call_id)
        if ask is not None:
            ask.asked.pop(connection, None)

    def end(self, generation: int) -> None:
        """The turn is over: its questions are."""
        for ask in [ask for ask in self.open.values() if ask.generation == generation]:
            ask.settle(Decision.CANCELLED, None, None)
            self.close(ask)
