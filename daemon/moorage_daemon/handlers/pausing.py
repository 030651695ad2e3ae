"""Holding a session, and letting it go on: in a paused one no turn starts, and prompts wait."""

from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Peer
from moorage_daemon.identity import Verb
from moorage_daemon.session import Session
from moorage_protocol.acp import SessionParams
from moorage_protocol.moorage import PauseResult, State


def pause(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Let no turn start; the one that runs ends by itself. Answered when that is durable."""
    session = _find(desk, peer, params)
    seq = session.pause(peer.identity.tui)
    return AtSeq(session.log, seq, PauseResult(state=State.PAUSED))


def resume(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Let turns start again, the first that waits at once; answers how the session is then."""
    session = _find(desk, peer, params)
    seq = session.resume(peer.identity.tui)
    return AtSeq(session.log, seq, PauseResult(state=_at_work(session)))


def _at_work(session: Session) -> State:
    if session.asks.open:
        return State.REQUIRES_ACTION
    return State.IDLE if session.turn is None else State.RUNNING


def _find(desk: Desk, peer: Peer, params: SessionParams) -> Session:
    access = peer.access_to(params.session_id)
    return desk.sessions.find(params.session_id, peer.identity.principal, Verb.PAUSE, access)
