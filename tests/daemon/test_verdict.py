"""The rule that says how a turn ended, line by line, and the cause that is set once."""

from dataclasses import dataclass
from itertools import permutations

import pytest

from moorage_daemon.agents.port import Prompt
from moorage_daemon.store.model import VerdictBody
from moorage_daemon.turn.turn import MAX_NOTED, Turn
from moorage_daemon.turn.verdict import (
    NOBODY,
    Abandoned,
    Caught,
    Ending,
    Raised,
    Request,
    Returned,
    judge,
)
from moorage_protocol.acp import StopReason
from moorage_protocol.moorage import CancelOutcome, Cause, Outcome, ToolCallCounts


COUNTS = ToolCallCounts(completed=2, cancelled=1)
ASKED = Request(Cause.CLIENT_RPC, "tui", [])


def judged(ending: Ending, request: Request = NOBODY) -> VerdictBody:
    return judge(ending, request, COUNTS)


@dataclass(frozen=True)
class Line:
    """One line of the rule: how it ended, whether somebody asked, and what that makes."""

    ending: Ending
    request: Request
    outcome: Outcome
    forced: bool = False
    cancel_lost: bool = False
    code: str | None = None
    stop_reason: StopReason | None = None


RULE = {
    "abandoned": Line(
        Abandoned(), ASKED, Outcome.CANCELLED, forced=True, stop_reason=StopReason.CANCELLED
    ),
    "never begun": Line(
        Abandoned(forced=False), ASKED, Outcome.CANCELLED, stop_reason=StopReason.CANCELLED
    ),
    "caught": Line(Caught(), ASKED, Outcome.CANCELLED, stop_reason=StopReason.CANCELLED),
    "asked and raised": Line(
        Raised("internal"), ASKED, Outcome.CANCELLED, stop_reason=StopReason.CANCELLED
    ),
    "asked and said so": Line(
        Returned(StopReason.CANCELLED), ASKED, Outcome.CANCELLED, stop_reason=StopReason.CANCELLED
    ),
    "asked and returned": Line(
        Returned(StopReason.END_TURN),
        ASKED,
        Outcome.COMPLETED,
        cancel_lost=True,
        stop_reason=StopReason.END_TURN,
    ),
    "asked and refused": Line(
        Returned(StopReason.REFUSAL),
        ASKED,
        Outcome.REFUSED,
        cancel_lost=True,
        stop_reason=StopReason.REFUSAL,
    ),
    "returned": Line(
        Returned(StopReason.MAX_TOKENS),
        NOBODY,
        Outcome.COMPLETED,
        stop_reason=StopReason.MAX_TOKENS,
    ),
    "refused": Line(
        Returned(StopReason.REFUSAL), NOBODY, Outcome.REFUSED, stop_reason=StopReason.REFUSAL
    ),
    "raised": Line(Raised("tool"), NOBODY, Outcome.FAILED, code="tool"),
    "said cancelled for nothing": Line(
        Returned(StopReason.CANCELLED), NOBODY, Outcome.FAILED, code="agent_failed"
    ),
}


@pytest.mark.parametrize("line", RULE.values(), ids=RULE.keys())
def test_each_line_of_the_rule_gives_its_verdict(line: Line) -> None:
    verdict = judged(line.ending, line.request)

    assert verdict.outcome is line.outcome
    assert verdict.forced is line.forced
    assert verdict.cancel_lost is line.cancel_lost
    assert verdict.code == line.code
    assert verdict.stop_reason == line.stop_reason
    assert verdict.tool_calls == COUNTS


@pytest.mark.parametrize("line", RULE.values(), ids=RULE.keys())
def test_a_cause_stands_in_the_verdict_if_and_only_if_it_is_cancelled(line: Line) -> None:
    verdict = judged(line.ending, line.request)

    assert (verdict.cause is not None) == (verdict.outcome is Outcome.CANCELLED)
    assert (verdict.by is not None) == (verdict.outcome is Outcome.CANCELLED)


def test_nothing_is_caught_or_abandoned_without_a_cause() -> None:
    for ending in (Caught(), Abandoned()):
        with pytest.raises(AssertionError):
            judged(ending)


# ---- the cause


def a_turn() -> Turn:
    return Turn(
        generation=1,
        prompt=Prompt([], "hello"),
        by="tui",
        origin="c1",
        queued_at=0.0,
        admitted_at=2,
    )


def test_the_first_cause_wins_whatever_the_order() -> None:
    """Behaviour 4: what comes later is noted beside it, with who and when."""
    for causes in permutations([Cause.CLIENT_RPC, Cause.ADMIN_KILL, Cause.SHUTDOWN]):
        turn = a_turn()
        outcomes = [turn.request_cancel(c, f"by {c}", at) for at, c in enumerate(causes)]

        assert outcomes == [CancelOutcome.FIRED, CancelOutcome.ALREADY, CancelOutcome.ALREADY]
        assert (turn.cause, turn.requested_by) == (causes[0], f"by {causes[0]}")
        later = [(request.cause, request.by, request.at) for request in turn.also_requested]
        assert later == [(causes[1], f"by {causes[1]}", 1.0), (causes[2], f"by {causes[2]}", 2.0)]


def test_of_a_flood_of_later_requests_so_many_are_noted_and_every_cause() -> None:
    turn = a_turn()
    for at in range(10_000):
        turn.request_cancel(Cause.CLIENT_RPC, "tui", float(at))

    turn.request_cancel(Cause.ADMIN_KILL, "operator", 10_000.0)

    assert len(turn.also_requested) == MAX_NOTED + 1
    assert turn.also_requested[-1].cause is Cause.ADMIN_KILL


def test_after_the_verdict_nothing_can_be_asked_of_a_turn() -> None:
    turn = a_turn()
    turn.conclude(judged(Returned(StopReason.END_TURN)), 7)

    assert turn.request_cancel(Cause.ADMIN_KILL, "tui", 1.0) is CancelOutcome.FINISHED

    assert turn.cause is None
    assert turn.also_requested == []
    assert not turn.stirred.is_set()


def test_a_turn_has_one_ending_and_one_verdict() -> None:
    turn = a_turn()
    turn.end(Raised("tool"))
    turn.end(Returned(StopReason.END_TURN))
    turn.conclude(judged(Raised("tool")), 7)

    assert turn.ending == Raised("tool")
    with pytest.raises(AssertionError):
        turn.conclude(judged(Raised("internal")), 8)
    assert turn.verdict_seq == 7


def test_whoever_watches_a_turn_is_told_once_also_when_late() -> None:
    turn, told = a_turn(), list[str]()
    turn.watch(lambda _: told.append("early"))

    turn.conclude(judged(Raised("tool")), 7)
    turn.watch(lambda _: told.append("late"))

    assert told == ["early", "late"]
