"""Bytes that sessions name and never had here: what was missing in the files they came out of."""

from collections.abc import Iterable

import msgspec

from moorage_daemon.store.model import Head, ImportedBody, Kind, UnreadableBody, read_body
from moorage_daemon.store.naming import blobs_named
from moorage_daemon.store.port import Missing, Store, StoreUnreadable


class Lost(msgspec.Struct, frozen=True):
    """Bytes that the first entries of a session name and have not got, whoever else has them."""

    upto: int = 0
    digests: frozenset[str] = frozenset()

    def covers(self, seq: int, sha256: str) -> bool:
        """Whether those bytes are not that entry's."""
        return seq <= self.upto and sha256 in self.digests


async def lost_of(store: Store, head: Head) -> Lost:
    """What was missing in the file that a session came out of.

    An entry that says so and cannot be read leaves nothing of the file to anybody: raises
    `UnreadableBody`.
    """
    if not head.imported:
        return Lost()
    page = await store.entries(
        head.id, head.imported - 1, limit=1, kinds=frozenset({Kind.IMPORTED})
    )
    digests = [d for entry in page.entries for d in read_body(entry, ImportedBody).lost]
    return Lost(head.imported, frozenset(digests))


async def lost_before(store: Store, missing: Iterable[Missing]) -> frozenset[str]:
    """The digests among those of missing blobs that every session came without that names them.

    Raises `StoreError`.
    """
    named: dict[str, set[str]] = {}
    absent: set[str] = set()
    here: set[str] = set()
    for blob in missing:
        absent.add(blob.sha256)
        if not blob.sessions:
            here.add(blob.sha256)
        for session in blob.sessions:
            named.setdefault(session, set()).add(blob.sha256)
    for session, digests in named.items():
        here |= digests - await _came_without(store, session, digests)
    return frozenset(absent - here)


async def _came_without(store: Store, session: str, digests: set[str]) -> set[str]:
    """Those among the digests that only entries name which came without their bytes."""
    try:
        stored = await store.load(session)
        if stored is None:
            return digests  # it was deleted meanwhile, and needs nothing
        lost = await lost_of(store, stored.head)
        return (digests & lost.digests) - await _named_after(store, session, lost.upto)
    except (StoreUnreadable, UnreadableBody):
        return set()


async def _named_after(store: Store, session: str, seq: int) -> set[str]:
    named: set[str] = set()
    more = True
    while more:
        page = await store.entries(session, seq)
        named = named.union(*map(blobs_named, page.entries))
        seq = page.entries[-1].seq if page.entries else seq
        more = page.more
    return named
