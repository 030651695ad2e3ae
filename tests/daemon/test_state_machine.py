"""Behaviour 40: whatever clients, operators, agents, time and disk do, the invariants hold.

And the machine that says so is worth something: it finds each of the bugs planted here.
"""

from dataclasses import fields
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from moorage_daemon.admission import Admission
from moorage_daemon.session import Session
from moorage_daemon.sessions import Sessions
from moorage_daemon.store.model import Kind
from moorage_daemon.store.port import Stored
from moorage_daemon.turn.turn import Turn
from moorage_protocol.moorage import CancelOutcome, Cause
from tests.daemon.interleavings import Interleavings


BOUNDED = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,  # the same ones every time; a longer search is a matter of settings
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_behaviour_40_the_invariants_hold_in_any_interleaving() -> None:
    run_state_machine_as_test(Interleavings, settings=BOUNDED)


# ---- bugs for the machine to find


class OverwrittenCause(Session):
    """A later cause takes the place of the first."""

    def _new_turn(self, admission: Admission) -> Turn:
        turn = super()._new_turn(admission)
        return ForgetfulTurn(**{each.name: getattr(turn, each.name) for each in fields(turn)})


class ForgetfulTurn(Turn):
    def request_cancel(
        self, cause: Cause, by: str, at: float, axis: str | None = None
    ) -> CancelOutcome:
        outcome = super().request_cancel(cause, by, at)
        if outcome is CancelOutcome.ALREADY:
            self.cause, self.requested_by = cause, by
        return outcome


class TwoVerdicts(Session):
    """A turn that is cancelled while it waits gets a second verdict."""

    def _conclude_queued(self, turn: Turn) -> None:
        super()._conclude_queued(turn)
        assert turn.verdict is not None
        self.log.append(Kind.VERDICT, turn.verdict, generation=turn.generation)


class GhostTurns(Session):
    """A kill forgets those that wait."""

    def stop_all(self, cause: Cause, by: str) -> None:
        if cause is not Cause.ADMIN_KILL:
            super().stop_all(cause, by)
        elif self.turn is not None:
            self.stop(self.turn, cause, by)

    @property
    def may_start(self) -> bool:
        return True


class Restless(Session):
    """Where a turn has ended the next one starts, paused or not."""

    def _next(self) -> None:
        super()._next()
        if self.turn is None and self.queue and self.ends is None:
            self._start(self.queue.popleft())


class Hasty(Session):
    """Whoever lets a session go on starts a turn, whether or not one runs."""

    def resume(self, by: str) -> int:
        seq = super().resume(by)
        if self.queue:
            self._set_going(self.queue.popleft())
        return seq


class ToldTooEarly(Session):
    """Whoever closes a session is answered before the verdicts are there."""

    async def ended(self) -> None:
        self.log.end_readers(self.log.seq)


class Planted(Sessions):
    """Sessions of another kind."""

    kind: ClassVar[type[Session]]

    def _made(self, stored: Stored, *, is_new: bool = False) -> Session:
        made = super()._made(stored, is_new=is_new)
        return self.kind(made.record, made.around)


@pytest.mark.parametrize(
    "bug", [OverwrittenCause, TwoVerdicts, GhostTurns, Restless, Hasty, ToldTooEarly]
)
def test_behaviour_40_the_machine_finds_a_planted_bug(bug: type[Session]) -> None:
    sessions = type("Sick", (Planted,), {"kind": bug})
    machine = type("SickInterleavings", (Interleavings,), {"sessions": sessions})
    search = settings(
        BOUNDED, max_examples=3000, phases=[Phase.generate], report_multiple_bugs=False
    )

    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=search)
