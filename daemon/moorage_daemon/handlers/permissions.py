"""Answering a permission question from outside the client that was asked."""

from moorage_daemon.handlers.port import Answer, Desk, Now, Peer
from moorage_daemon.identity import Verb
from moorage_protocol.moorage import RespondParams, RespondResult


def respond(desk: Desk, peer: Peer, params: RespondParams) -> Answer:
    """Choose an option for an open question; the first choice counts."""
    session = desk.sessions.find(
        params.session_id,
        peer.identity.principal,
        Verb.ACT,
        peer.access_to(params.session_id),
    )
    outcome = session.asks.select(params.tool_call_id, params.option_id, peer.identity.tui)
    return Now(RespondResult(outcome=outcome))
