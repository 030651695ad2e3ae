"""Export and import: a session as a file, in parts that fit a message.

What writes and reads files is loaded with the first of them: most daemons never see one.
"""

from functools import partial

import trio

from moorage_daemon.handlers.port import Answer, Desk, Later, Now, Peer
from moorage_daemon.identity import Verb
from moorage_protocol.errors import Busy, InvalidParams, NotPermitted, StorageError
from moorage_protocol.moorage import Role
from moorage_protocol.transfer import (
    MAX_PART,
    ExportParams,
    ExportResult,
    ImportBeginParams,
    ImportBegun,
    Imported,
    ImportedSoFar,
    ImportFinishParams,
    ImportPartParams,
)


MAX_FILE = 4 * 2**30  # bytes; more is no session


def export(desk: Desk, peer: Peer, params: ExportParams) -> Answer:
    """A part of a session's file, of a killed one too."""
    from moorage_daemon.transfer.export import first_part, next_part

    principal = peer.identity.principal
    session = desk.sessions.find(params.session_id, principal, Verb.WATCH, killed=True)
    store, now = session.around.store, desk.sessions.committer.now()

    async def work() -> ExportResult:
        if params.cursor is None:
            return await first_part(store, session.log, now)
        return await next_part(store, session.log, params.cursor)

    return Later(work)


def begin(desk: Desk, peer: Peer, params: ImportBeginParams) -> Answer:
    """A file is about to come."""
    from moorage_daemon.transfer.intake import Importer, Intake

    identity = peer.identity
    if identity.principal.role is Role.OBSERVER:
        raise NotPermitted
    if desk.sessions.committer.low:
        raise StorageError
    importer = Importer(
        identity.principal.name,
        identity.tui,
        keep_id=params.keep_id,
        keep_allowed=params.keep_allowed,
        agent=desk.default_agent,
    )
    import_id = desk.imports.begin(identity.connection, partial(Intake, importer=importer))
    return Now(ImportBegun(import_id=import_id, max_part=MAX_PART))


def part(desk: Desk, peer: Peer, params: ImportPartParams) -> Answer:
    """The next bytes of a file; answered when they are read and durable."""
    intake = desk.imports.find(peer.identity.connection, params.import_id)
    if intake.is_busy:
        raise Busy("The part before is still being read")
    if params.offset != intake.offset:
        raise InvalidParams(f"Invalid params: offset must be {intake.offset}")
    if len(params.data) > MAX_PART or intake.offset + len(params.data) > MAX_FILE:
        raise InvalidParams("Invalid params: data is too long")
    intake.is_busy = True
    intake.offset += len(params.data)

    async def work() -> ImportedSoFar:
        try:
            await intake.take(params.data)
        except BaseException:
            desk.imports.drop(params.import_id)
            raise
        finally:
            intake.is_busy = False
            intake.touched = trio.current_time()
        return ImportedSoFar(offset=intake.offset)

    return Later(work)


def finish(desk: Desk, peer: Peer, params: ImportFinishParams) -> Answer:
    """The file has ended; answered when its session is there."""
    intake = desk.imports.find(peer.identity.connection, params.import_id)
    if intake.is_busy:
        raise Busy("The part before is still being read")
    intake.is_busy = True

    async def work() -> Imported:
        try:
            imported = await intake.finish()
        except BaseException:
            desk.imports.drop(params.import_id)
            raise
        desk.imports.forget(params.import_id)
        return imported

    return Later(work)
