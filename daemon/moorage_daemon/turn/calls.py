"""A tool call on its way from its announcement to its result."""

from dataclasses import dataclass

import msgspec

from moorage_daemon.grants.calls import Call, Words
from moorage_daemon.grants.refusals import Refused
from moorage_daemon.ledger.holding import Receipt
from moorage_daemon.turn.posture import Deed, Leave
from moorage_protocol.acp import ToolKind


QUESTION = Deed(ToolKind.OTHER, asks=True)
MAX_IN_VAIN = 100  # calls in a row of which none was started: more is no agent that gets on
NO_CALL = Call("Ask", Words(""))


class OpenCall(msgspec.Struct, frozen=True):
    """A tool call that is under way. `deed` is what it comes to: a question does nothing.

    `about` is the call as rules see it, `credentials` are those it refers to; one that `is_secret`
    has a secret in its arguments. `started` is the loop's time when its tool was started, None
    before; `artifacts` are the addresses of what it said at length, `output_bytes` how long that
    was.
    """

    id: str
    tool: str
    deed: Deed
    about: Call = NO_CALL
    credentials: tuple[str, ...] = ()
    is_secret: bool = False
    started: float | None = None
    artifacts: tuple[str, ...] = ()
    output_bytes: int | None = None

    def duration_ms(self, now: float) -> int | None:
        """How long its tool has been at work."""
        return None if self.started is None else round((now - self.started) * 1000)


@dataclass
class Intent:
    """What came of the intent to call a tool, in the tick in which it was decided."""

    leave: Leave = Leave.UNASKED
    receipt: Receipt | None = None
    refusal: Refused | None = None
