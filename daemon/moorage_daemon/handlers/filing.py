"""Sessions as a list keeps them: status, titles, and the archive (Agent Client Protocol, unstable).

None of it loads a session for a client or attaches one.
"""

from moorage_daemon.handlers.config import SetUp, patched
from moorage_daemon.handlers.port import Answer, AtSeq, Desk, Now, Peer
from moorage_daemon.handlers.sessions import done_when
from moorage_daemon.identity import Verb, authorize
from moorage_daemon.session import Session
from moorage_daemon.store.model import Life
from moorage_protocol.acp import (
    Empty,
    SessionParams,
    SessionStatus,
    SessionStatusResult,
    SetTitleParams,
    SetTitleResult,
)
from moorage_protocol.config import ConfigPatch
from moorage_protocol.errors import InvalidParams, NotFound


MAX_TITLE = 200  # characters; a longer one is cut
MAX_ASKED = 256  # characters of an id that is said again


def status(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Whether a session is in memory; nothing is changed by asking."""
    head = desk.sessions.head(params.session_id)
    try:
        if head is None or head.life is Life.KILLED:
            raise NotFound
        authorize(peer.identity.principal, head.principal, Verb.WATCH)
    except NotFound:
        asked = params.session_id
        raise NotFound if len(asked) > MAX_ASKED else NotFound.asked_for(asked) from None
    is_live = params.session_id in desk.sessions.live
    return Now(SessionStatusResult(status=SessionStatus.OPEN if is_live else SessionStatus.SAVED))


def set_title(desk: Desk, peer: Peer, params: SetTitleParams) -> Answer:
    """Give a session a title; it is its name in the configuration, and stays."""
    session = _find(desk, peer, params.session_id)
    title = " ".join(params.title.split())[:MAX_TITLE].strip()
    if not title:
        raise InvalidParams("Invalid params: title is blank")
    head, patch = session.head, ConfigPatch(name=title)
    before = SetUp(head.title, head.parent, head.labels, head.config)
    seq = session.record.set_up(patch, vars(patched(before, patch)), peer.identity.tui)
    return AtSeq(session.log, seq, SetTitleResult(title=title))


def archive(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Close a session and take it off the usual list; all of it stays."""
    session = _find(desk, peer, params.session_id)
    return done_when(desk.sessions.archive(session, peer.identity.tui))


def unarchive(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Put a session back on the usual list."""
    session = _find(desk, peer, params.session_id)
    if not session.head.archived:
        return Now(Empty())
    return AtSeq(session.log, session.record.file(peer.identity.tui, archived=False), Empty())


def _find(desk: Desk, peer: Peer, session_id: str) -> Session:
    access = peer.access_to(session_id)
    return desk.sessions.find(session_id, peer.identity.principal, Verb.ACT, access)
