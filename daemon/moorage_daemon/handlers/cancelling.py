"""What a client's cancel is about: which turns of a session, and what became of them.

Whether a turn stops is the turn's and the session's affair; here it is only which ones are meant.
"""

from typing import assert_never

from moorage_daemon.session import Session
from moorage_daemon.turn.turn import Turn
from moorage_protocol.errors import InvalidParams
from moorage_protocol.moorage import CancelMeta, CancelOutcome, CancelResult, Cause, Scope


def cancelled(session: Session, wish: CancelMeta | None, by: str, origin: str) -> CancelResult:
    """Stop the turns that `wish` is about, with cause `client_rpc`.

    Without a wish these are the turns which the connection `origin` prompted, running and waiting,
    or, if there is none, the running one. Raises `InvalidParams` for a turn that never was.
    """
    if wish is not None and wish.generation is not None:
        return _cancelled_turn(session, wish.generation, by)
    targets = _targets(session, wish.scope if wish else None, origin)
    outcomes = [(session.stop(turn, Cause.CLIENT_RPC, by), turn) for turn in reversed(targets)]
    for outcome in (CancelOutcome.FIRED, CancelOutcome.ALREADY, CancelOutcome.FINISHED):
        for found, turn in reversed(outcomes):
            if found is outcome:
                return CancelResult(outcome=outcome, generation=turn.generation)
    return CancelResult(outcome=CancelOutcome.IDLE)


def _targets(session: Session, scope: Scope | None, origin: str) -> list[Turn]:
    current = [session.turn] if session.turn else []
    match scope:
        case None:
            return [turn for turn in session.turns if turn.origin == origin] or current
        case Scope.CURRENT:
            return current
        case Scope.QUEUED:
            return [*session.queue]
        case Scope.ALL:
            return session.turns
        case _:
            assert_never(scope)


def _cancelled_turn(session: Session, generation: int, by: str) -> CancelResult:
    given = session.head.generation
    if not 0 < generation <= given:
        raise InvalidParams("Invalid params: generation was never given")
    turn = session.find(generation)
    if turn is not None:
        return CancelResult(outcome=session.stop(turn, Cause.CLIENT_RPC, by), generation=generation)
    newest = session.turn.generation if session.turn else given
    outcome = CancelOutcome.STALE if generation < newest else CancelOutcome.FINISHED
    return CancelResult(outcome=outcome, generation=generation)


def withdrawn(session: Session, generation: int, by: str) -> bool:
    """Take a waiting prompt back; False if it does not wait."""
    turn = session.find(generation)
    if turn is None or turn not in session.queue:
        return False
    return session.stop(turn, Cause.CLIENT_RPC, by) is CancelOutcome.FIRED
