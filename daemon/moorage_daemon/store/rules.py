"""What all stores have in common: which change continues a log, and where a page ends."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from moorage_daemon.store.model import SCHEMA, Entry
from moorage_daemon.store.port import Change, Page, StoreCapped, StoreConflict


class Tip(msgspec.Struct, frozen=True):
    """Where a stored session stands: the number of its last entry and its head's schema."""

    seq: int
    schema: int


def advance(
    changes: Sequence[Change], tip_of: Callable[[str], Tip | None], count: Callable[[], int]
) -> dict[str, Tip]:
    """Where the sessions stand after the changes; raises `StoreConflict` if one does not fit.

    A commit may hold several changes of a session; each continues the one before it. `count`
    gives how many sessions there are.
    """
    after: dict[str, Tip] = {}
    created = 0
    for change in changes:
        tip = after.get(change.session) or tip_of(change.session)
        after[change.session] = _continue(change, tip)
        created += change.create
        if change.create and change.cap is not None and count() + created > change.cap:
            raise StoreCapped(change.session, f"there are {change.cap} sessions already")
    return after


def is_text(session: str) -> bool:
    """Whether there can be a session of that name: a lone surrogate is no text."""
    try:
        session.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_id(session: str) -> None:
    """Raises `StoreConflict` for an id that no session can have."""
    if not is_text(session):
        raise StoreConflict(ascii(session), "its id is no text")


def _continue(change: Change, tip: Tip | None) -> Tip:
    tip = _start(change, tip)
    seq = tip.seq
    for entry in change.entries:
        if entry.seq != seq + 1:
            raise StoreConflict(change.session, f"entry {entry.seq} does not follow {seq}")
        seq = entry.seq
    return Tip(seq, tip.schema if change.head is None else change.head.schema)


def _start(change: Change, tip: Tip | None) -> Tip:
    if change.head is not None and change.head.id != change.session:
        raise StoreConflict(change.session, f"the head is of {change.head.id}")
    if change.create:
        check_id(change.session)
        if tip is not None:
            raise StoreConflict(change.session, "exists already")
        if change.head is None:
            raise StoreConflict(change.session, "cannot be created without a head")
        return Tip(0, SCHEMA)
    if tip is None:
        raise StoreConflict(change.session, "does not exist")
    if tip.schema > SCHEMA:
        raise StoreConflict(change.session, f"has schema {tip.schema}: it can only be read")
    return tip


def trimmed_to(session: str, tip: Tip, first: int, before: int) -> int:
    """The number of the first entry that stays when those below `before` go.

    Raises `StoreConflict` for a session of a newer schema.
    """
    if tip.schema > SCHEMA:
        raise StoreConflict(session, f"has schema {tip.schema}: it can only be read")
    return max(first, min(before, tip.seq))


def fault_of(seq: int, body: bytes) -> str | None:
    """Why the entry cannot be told: its body is no JSON object. None for a sound one."""
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"its entry {seq}: {error}"
    return None if body.startswith(b"{") else f"its entry {seq} is no object"


def cut_page(found: Iterable[Entry], limit: int, max_bytes: int, *, gap: bool = False) -> Page:
    """The first of `found` that fit; a page ends with the entry that exceeds `max_bytes`."""
    entries: list[Entry] = []
    size = 0
    for entry in found:
        if len(entries) == limit or size > max_bytes:
            return Page(entries, more=True, gap=gap)
        entries.append(entry)
        size += len(entry.body)
    return Page(entries, gap=gap)
