"""The record of a kill where a session's own log has failed: it is repeated until it holds.

A session that was killed stays killed in memory whatever the disk does. Its failed log never goes
on, so what is stored is ended by another one, which continues what the store has by then.
"""

import logging

import trio
from msgspec.structs import replace

from moorage_daemon.log.committer import Committer
from moorage_daemon.log.log import Log
from moorage_daemon.log.recovery import Cut, mended
from moorage_daemon.store.model import Kind, Life, StateBody
from moorage_daemon.store.port import Stored, StoreError
from moorage_protocol.errors import StorageError
from moorage_protocol.moorage import Cause


logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.25  # seconds after a failure; each further one waits twice as long
LONGEST_PAUSE = 5.0  # seconds: a store that works again is found soon, a broken one costs little


async def record_kill(committer: Committer, session: str, death: StateBody) -> Stored | None:
    """Write that a session was killed, and verdicts for its turns that have none, until it holds.

    Gives the session as it is stored then; None if nothing is stored of it.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await _record(committer, session, death)
        except (StoreError, StorageError):
            if pause == FIRST_PAUSE:
                logger.exception("a kill cannot be recorded yet", extra={"session": session})
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _record(committer: Committer, session: str, death: StateBody) -> Stored | None:
    stored = await committer.store.load(session)
    if stored is None:
        return None
    cut = Cut(Cause.ADMIN_KILL, death.by, "The session was killed")
    change = await mended(committer.store, stored, committer.now(), cut)
    assert change.head is not None
    if change.head.life is Life.KILLED and not change.entries:
        return stored
    log = Log(stored, committer)
    if change.head.life is not Life.KILLED:
        log.append(Kind.STATE, death)
    for entry in change.entries:
        log.append(entry.kind, entry.body, generation=entry.generation, at=entry.at)
    head = replace(change.head, life=Life.KILLED)
    log.write_head(head)
    await log.until(log.seq, patient=True)
    return Stored(head, log.seq, stored.first)
