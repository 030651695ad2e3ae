"""The rule that says how a turn ended, in one place.

The first line that fits decides:

    abandoned after the grace                               cancelled, forced
    a cause is set, and the scope caught it, or the agent
      raised, or the agent said it was cancelled            cancelled
    a cause is set, and the agent returned something else   completed, the cancel was lost
    returned                                                completed, or refused
    raised                                                  failed

A cause stands in the verdict if and only if the turn was cancelled.
"""

import msgspec

from moorage_daemon.store.model import VerdictBody
from moorage_protocol.acp import StopReason
from moorage_protocol.moorage import AlsoRequested, Cause, Outcome, ToolCallCounts


class Returned(msgspec.Struct, frozen=True):
    """The agent came to an end by itself."""

    reason: StopReason


class Caught(msgspec.Struct, frozen=True):
    """The cancellation reached the agent and ended it."""


class Raised(msgspec.Struct, frozen=True):
    """The agent broke; `code` is a stable word for what did."""

    code: str


class Abandoned(msgspec.Struct, frozen=True):
    """The agent did not end within the grace, or never began."""

    forced: bool = True


Ending = Returned | Caught | Raised | Abandoned


class Request(msgspec.Struct, frozen=True):
    """Who asked the turn to stop."""

    cause: Cause | None
    by: str | None
    also: list[AlsoRequested]
    axis: str | None = None  # of a budget: what there was no more of


NOBODY = Request(None, None, [])


def judge(ending: Ending, request: Request, tool_calls: ToolCallCounts) -> VerdictBody:
    """The verdict on a turn that ended so."""
    match ending:
        case Abandoned(forced):
            return _cancelled(request, tool_calls, forced=forced)
        case Caught() | Raised() | Returned(StopReason.CANCELLED) if request.cause is not None:
            return _cancelled(request, tool_calls)
        case Returned(reason):
            return _returned(reason, request, tool_calls)
        case Raised(code):
            return VerdictBody(outcome=Outcome.FAILED, code=code, tool_calls=tool_calls)
        case Caught():
            raise AssertionError("a scope catches nothing without a cause")


def _cancelled(
    request: Request, tool_calls: ToolCallCounts, *, forced: bool = False
) -> VerdictBody:
    assert request.cause is not None, "whoever stops a turn says why"
    return VerdictBody(
        outcome=Outcome.CANCELLED,
        cause=request.cause,
        by=request.by,
        also_requested=request.also,
        forced=forced,
        stop=request.axis,
        stop_reason=_SPENT.get(request.axis or "", StopReason.CANCELLED),
        tool_calls=tool_calls,
    )


# What the protocol calls it when a turn has used up what it had.
_SPENT = {
    "calls": StopReason.MAX_TURN_REQUESTS,
    "tokens": StopReason.MAX_TOKENS,
    "micros": StopReason.MAX_TOKENS,
}


def _returned(reason: StopReason, request: Request, tool_calls: ToolCallCounts) -> VerdictBody:
    refused = reason is StopReason.REFUSAL
    if reason is StopReason.CANCELLED:  # nobody asked for it: the agent is wrong about itself
        return VerdictBody(outcome=Outcome.FAILED, code="agent_failed", tool_calls=tool_calls)
    return VerdictBody(
        outcome=Outcome.REFUSED if refused else Outcome.COMPLETED,
        cancel_lost=request.cause is not None,
        also_requested=request.also,
        stop_reason=reason,
        tool_calls=tool_calls,
    )
