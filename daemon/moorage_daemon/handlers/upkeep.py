"""The store as its operator sees it."""

import logging

from moorage_daemon.handlers.port import Answer, Desk, Later, Peer
from moorage_daemon.log.committer import Committer
from moorage_daemon.log.losses import lost_before
from moorage_daemon.store.port import Problem, StoreError
from moorage_protocol.acp import Empty
from moorage_protocol.errors import NotPermitted, StorageError
from moorage_protocol.moorage import Role
from moorage_protocol.upkeep import (
    StoreCheckResult,
    StoreGcResult,
    StoreHealthResult,
    StoreProblem,
)


logger = logging.getLogger(__name__)

MOST = 1000  # problems in one answer
LONGEST = 300  # characters of one; the whole of it stands in the daemon's log


def health(desk: Desk, peer: Peer, params: Empty) -> Answer:
    """Try every step of durable writing."""
    _must_be_operator(peer)

    async def work() -> StoreHealthResult:
        committer = desk.sessions.committer
        return StoreHealthResult(
            name=committer.store.name,
            healthy=await _is_proven(committer),
            free_bytes=committer.store.free(),
            floor_bytes=committer.floor,
            low=committer.low,
            damaged=len(desk.sessions.damaged),
        )

    return Later(work)


async def _is_proven(committer: Committer) -> bool:
    try:
        await committer.prove()
    except StoreError:
        logger.exception("the store is not well")
    return committer.is_well


def check(desk: Desk, peer: Peer, params: Empty) -> Answer:
    """Look at everything that is stored; what runs goes on meanwhile."""
    _must_be_operator(peer)

    async def work() -> StoreCheckResult:
        store = desk.sessions.committer.store
        try:
            report = await store.check()
            lost = await lost_before(store, [p.missing for p in report.problems if p.missing])
        except StoreError as error:
            logger.exception("the store cannot be checked")
            raise StorageError from error
        problems = [p for p in report.problems if not (p.missing and p.missing.sha256 in lost)]
        for found in problems:
            extra = {"problem": found.problem, "session": found.session}
            logger.error("the store has a problem", extra=extra)
        return StoreCheckResult(
            name=store.name,
            sessions=report.sessions,
            entries=report.entries,
            blobs=report.blobs,
            problems=[_shown(found) for found in problems[:MOST]],
            more=max(0, len(problems) - MOST),
            lost=len(lost),
            notes=[note[:LONGEST] for note in report.notes[:MOST]],
        )

    return Later(work)


def _shown(found: Problem) -> StoreProblem:
    text = found.problem[:LONGEST]
    return StoreProblem(text) if found.session is None else StoreProblem(text, found.session)


def gc(desk: Desk, peer: Peer, params: Empty) -> Answer:
    """Do now what is done every hour."""
    _must_be_operator(peer)

    async def work() -> StoreGcResult:
        try:
            cleaned = await desk.housekeeping.clean()
        except StoreError as error:
            logger.exception("the store cannot be cleaned up")
            raise StorageError from error
        return StoreGcResult(
            expired_sessions=cleaned.expired,
            trimmed_entries=cleaned.trimmed,
            blobs=cleaned.collected.blobs,
            blob_bytes=cleaned.collected.bytes,
            freed_bytes=cleaned.freed,
        )

    return Later(work)


def _must_be_operator(peer: Peer) -> None:
    if peer.identity.principal.role is not Role.OPERATOR:
        raise NotPermitted
