"""The log as a client reads it: attach, detach, and entries on request."""

from msgspec import UNSET

from moorage_daemon.handlers.port import Answer, Desk, Later, Now, Peer
from moorage_daemon.handlers.snapshot import info_updates, setting_updates, snapshot_updates
from moorage_daemon.identity import Verb, granted
from moorage_daemon.log.render import check_bodies, entry_object
from moorage_daemon.session import Session
from moorage_daemon.store.port import StoreError
from moorage_protocol.acp import Empty, SessionParams
from moorage_protocol.errors import CursorExpired, InvalidParams, StorageError
from moorage_protocol.moorage import (
    Access,
    AttachParams,
    EntriesParams,
    EntriesResult,
    PendingPermission,
    Snapshot,
)


PAGE_LIMIT = 1000  # entries in one answer
MAX_KINDS = 64  # there are not half as many
PAGE_BYTES = 512 * 2**10  # of entry bodies: the answer stays under 1 MiB


def attach(desk: Desk, peer: Peer, params: AttachParams) -> Answer:
    """Send a session's entries from here on; the snapshot is of the same instant."""
    if params.after_seq is not None and params.after_seq < 0:
        raise InvalidParams("Invalid params: afterSeq")
    session = desk.sessions.find(params.session_id, peer.identity.principal, Verb.WATCH)
    if params.after_seq is not None and params.after_seq + 1 < session.log.first:
        raise CursorExpired
    access = granted(peer.identity.principal, session.head.principal, params.access)
    peer.attach(session, params.after_seq, access, continues=params.continues)
    then = (
        *snapshot_updates(desk, session),
        *setting_updates(desk, session),
        *info_updates(session),
    )
    return Now(_snapshot(session, access), then)


def _snapshot(session: Session, access: Access) -> Snapshot:
    told = session.log.told
    return Snapshot(
        session_id=session.id,
        seq=told.seq,
        access=access,
        state=session.state,
        turn=told.turn if told.turn is not None else UNSET,
        queue=[told.queue[generation] for generation in sorted(told.queue)],
        pending_permissions=[
            PendingPermission(
                tool_call_id=ask.body.tool_call_id,
                title=ask.body.title,
                options=ask.body.options,
                expires_at=ask.body.expires_at,
            )
            for ask in told.asks.values()
        ],
        attached=len(session.log.cursors),
    )


def detach(desk: Desk, peer: Peer, params: SessionParams) -> Answer:
    """Send no more of a session; it goes on."""
    peer.detach(params.session_id)
    return Now(Empty())


def entries(desk: Desk, peer: Peer, params: EntriesParams) -> Answer:
    """A page of the log, of a killed session too."""
    session = desk.sessions.find(
        params.session_id, peer.identity.principal, Verb.WATCH, killed=True
    )
    if params.after < 0 or not 1 <= params.limit <= PAGE_LIMIT:
        raise InvalidParams(f"Invalid params: limit must be from 1 to {PAGE_LIMIT}")
    if params.kinds is not None and len(params.kinds) > MAX_KINDS:
        raise InvalidParams(f"Invalid params: kinds: at most {MAX_KINDS}")
    return Later(lambda: _page(session, params))


async def _page(session: Session, params: EntriesParams) -> EntriesResult:
    try:
        page = await session.around.store.entries(
            session.id,
            min(params.after, session.log.seq),
            limit=params.limit,
            max_bytes=PAGE_BYTES,
            kinds=None if params.kinds is None else frozenset(params.kinds),
        )
        check_bodies(session.id, page.entries)
    except StoreError as error:
        raise StorageError from error
    if page.gap and not page.entries:
        raise CursorExpired
    return EntriesResult(
        entries=[entry_object(entry) for entry in page.entries],
        gap=page.gap,
        next=page.entries[-1].seq if page.more and page.entries else None,
    )
