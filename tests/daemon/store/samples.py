"""Heads, entries and changes for tests of stores."""

from collections.abc import Iterable

import msgspec
import trio

from moorage_daemon.store.model import Entry, Head, Kind
from moorage_daemon.store.port import Change, Page, Store
from moorage_protocol.moorage import Mode


# Ids that file systems, shells and databases like to confuse.
HOSTILE = [
    "a/b",
    "a_b",
    "a\\b",
    "a..b",
    "..",
    ".",
    "_",
    "/",
    "",
    "A",
    "a",
    "CON",
    "e\u0301",
    "\u00e9",
    "x" * 1000,
    "x" * 999,
    "s" + "x" * 119,
    "tenant/1",
    "tenant_1",
    "nul\0",
    "../../../etc/passwd",
    "some.journal",
]


def a_head(session: str, *, title: str | None = None, schema: int = 1) -> Head:
    return Head(
        id=session,
        principal="local",
        owner="tui",
        agent="scripted",
        mode=Mode.CODE,
        cwd="/work",
        created_at=1.5,
        updated_at=2.5,
        title=title,
        schema=schema,
    )


def an_entry(seq: int, body: bytes = b"{}", *, kind: str = Kind.MESSAGE) -> Entry:
    return Entry(seq, 1000.25 + seq, kind, body, 1, "c1")


def entries(first: int, last: int, body: bytes = b"{}") -> tuple[Entry, ...]:
    return tuple(an_entry(seq, body) for seq in range(first, last + 1))


def creation(session: str, count: int = 0) -> Change:
    """A new session with so many entries."""
    return Change(session, entries(1, count), a_head(session), create=True)


class in_chunks:  # noqa: N801 - it is used like a generator, and needs no closing
    """Bytes as they come over a wire."""

    def __init__(self, data: bytes, size: int = 100_000) -> None:
        self._chunks = [data[start : start + size] for start in range(0, len(data), size)]

    def __aiter__(self) -> "in_chunks":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop(0)


def seqs(page: Page | Iterable[Entry]) -> list[int]:
    found = page.entries if isinstance(page, Page) else page
    return [entry.seq for entry in found]


async def all_entries(store: Store, session: str, after: int = 0) -> list[Entry]:
    """The whole log, page by page."""
    found: list[Entry] = []
    more = True
    while more:
        page = await store.entries(session, after + len(found))
        found += page.entries
        more = page.more
    return found


def raw(value: object) -> bytes:
    return msgspec.json.encode(value)
