"""What no store of sessions may get wrong (TX-01 to TX-09 and TX-15), on each backend that it fits.

The numbers between are about what is built on a store: they stand in `tests/daemon`.
"""

import os
import random
import stat
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import msgspec
import pytest
import trio

from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.model import SCHEMA, Entry
from moorage_daemon.store.opening import DATABASE, DIRECTORY
from moorage_daemon.store.port import (
    Change,
    Store,
    StoreBroken,
    StoreCapped,
    StoreConflict,
    StoreUnreadable,
)
from tests.daemon.store.backends import Backend
from tests.daemon.store.samples import (
    HOSTILE,
    a_head,
    all_entries,
    an_entry,
    creation,
    entries,
    seqs,
)


# ---- TX-01


async def test_tx01_every_id_is_a_session_of_its_own(backend: Backend) -> None:
    async with backend.open() as store:
        for number, session in enumerate(HOSTILE):
            head = a_head(session, title=f"{number}")
            await store.commit([Change(session, entries(1, number), head, create=True)])
        await store.delete(HOSTILE[0])

        assert sorted(s.head.id for s in await store.list()) == sorted(HOSTILE[1:])
        for number, session in enumerate(HOSTILE[1:], start=1):
            stored = await store.load(session)
            assert stored is not None
            assert (stored.head.id, stored.head.title, stored.seq) == (session, f"{number}", number)
        assert await store.load(HOSTILE[0]) is None


# ---- TX-02


WRITES_UNTIL_KILLED = """
import sys
from pathlib import Path
import trio
from moorage_daemon.store.port import Change
from tests.daemon.store.backends import Backend
from tests.daemon.store.samples import a_head, creation, entries

async def main():
    async with Backend(sys.argv[1], Path(sys.argv[2])).open() as store:
        seq = await store.tip("s1")
        if seq is None:
            await store.commit([creation("s1"), creation("s2")])
            seq = 0
        while True:
            seq += 1
            same = entries(seq, seq, b'{"x":"%b"}' % (b"x" * (seq * 37 % 3000)))
            await store.commit([Change("s1", same, a_head("s1", title=f"{seq}")),
                                Change("s2", same)])
            sys.stdout.buffer.write(b"%d\\n" % seq)
            sys.stdout.buffer.flush()

trio.run(main)
"""
KILLS = 4  # here; the torture does 200 of them


async def test_tx02_a_kill_takes_no_acknowledged_commit_and_halves_none(durable: Backend) -> None:
    chance = random.Random(2)
    for _ in range(KILLS):
        acked = await trio.to_thread.run_sync(_killed, durable, chance.randrange(1, 60))

        async with durable.open() as store:
            stored = await store.load("s1")
            assert stored is not None
            assert stored.seq >= acked, "what was acknowledged is there"
            assert stored.head.title == f"{stored.seq}", "head and entry are one commit"
            assert await store.tip("s2") == stored.seq, "both sessions, or neither"
            assert seqs(await all_entries(store, "s1")) == list(range(1, stored.seq + 1))


def _killed(backend: Backend, acks: int) -> int:
    """Kill a writing process after so many acks; gives the last that it gave."""
    words = [sys.executable, "-c", WRITES_UNTIL_KILLED, backend.name, str(backend.folder)]
    with Popen(words, stdout=PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acks)]
        process.kill()
        lines += [line for line in process.stdout if line.endswith(b"\n")]
    return int(lines[-1])


# ---- TX-03


@pytest.mark.parametrize("place", ["first", "middle", "last"])
async def test_tx03_head_and_entries_appear_together_or_not_at_all(
    store: Store, place: str
) -> None:
    await store.commit([creation("s1", 1), creation("s2", 1), creation("s3", 1)])
    good = [
        Change("s1", entries(2, 3), a_head("s1", title="new")),
        Change("s2", entries(2, 2), a_head("s2", title="new")),
    ]
    bad = Change("s3", entries(7, 8), a_head("s3", title="new"))
    at = {"first": 0, "middle": 1, "last": 2}[place]

    with pytest.raises(StoreConflict):
        await store.commit([*good[:at], bad, *good[at:]])

    found = [(s.head.title, s.seq) for s in await store.list()]
    assert found == [(None, 1)] * 3
    await store.commit(good)
    assert [(s.head.title, s.seq) for s in await store.list()] == [
        ("new", 3),
        ("new", 2),
        (None, 1),
    ]


# ---- TX-04


async def test_tx04_a_second_process_is_refused(durable: Backend) -> None:
    async with durable.open() as store:
        await store.commit([creation("s1", 1)])

        output = await trio.to_thread.run_sync(_opened_elsewhere, durable)

        assert "StoreBroken" in output
        await store.commit([Change("s1", entries(2, 2))])
    async with durable.open() as store:
        assert await store.tip("s1") == 2


OPENS = """
import sys
from pathlib import Path
import trio
from tests.daemon.store.backends import Backend

async def main():
    async with Backend(sys.argv[1], Path(sys.argv[2])).open():
        print("opened")

trio.run(main)
"""


def _opened_elsewhere(backend: Backend) -> str:
    words = [sys.executable, "-c", OPENS, backend.name, str(backend.folder)]
    with Popen(words, stdout=PIPE, stderr=PIPE, text=True) as process:
        out, err = process.communicate(timeout=30)
    assert "opened" not in out
    return err


# ---- TX-05


async def test_tx05_of_twenty_creators_as_many_succeed_as_the_cap_allows(store: Store) -> None:
    outcomes: list[str] = []

    async def create(number: int) -> None:
        session = f"s{number:02}"
        change = Change(session, entries(1, 1), a_head(session), create=True, cap=3)
        try:
            await store.commit([change])
            outcomes.append("created")
        except StoreCapped:
            outcomes.append("capped")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(create, number)

    assert sorted(outcomes) == ["capped"] * 17 + ["created"] * 3
    assert len(await store.list()) == 3


async def test_tx05_of_twenty_creators_of_one_id_one_succeeds(store: Store) -> None:
    outcomes: list[str] = []

    async def create(number: int) -> None:
        head = a_head("same", title=f"{number}")
        try:
            await store.commit([Change("same", entries(1, number + 1), head, create=True)])
            outcomes.append("created")
        except StoreConflict:
            outcomes.append("there")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(create, number)

    assert sorted(outcomes) == ["created"] + ["there"] * 19
    [stored] = await store.list()
    assert stored.head.title == f"{stored.seq - 1}", "head and entries of the same creator"


# ---- TX-06


async def test_tx06_an_unknown_kind_survives_byte_for_byte(backend: Backend) -> None:
    bodies = [b'{"b": 1.0,"a":[1e3, "\\u00e9"],"b":2}', b"{}", b'{"text": "\xc3\xa9"}']
    made = tuple(Entry(n, 1.5, "kind-of-tomorrow", body) for n, body in enumerate(bodies, start=1))
    async with backend.open() as store:
        await store.commit([Change("s1", made, a_head("s1"), create=True)])
        await store.commit([Change("s1", entries(4, 4), a_head("s1", title="rewritten"))])
        if backend.name == "memory":
            assert (await all_entries(store, "s1"))[:3] == list(made)
            return

    async with backend.open() as store:
        assert (await all_entries(store, "s1"))[:3] == list(made)


async def test_tx06_a_head_of_a_newer_schema_is_read_and_never_written(store: Store) -> None:
    await store.commit([Change("s1", entries(1, 2), a_head("s1", schema=SCHEMA + 1), create=True)])

    for change in (
        Change("s1", entries(3, 3)),
        Change("s1", head=a_head("s1", title="x")),
        Change("s1", entries(3, 3), a_head("s1", schema=SCHEMA + 1)),
    ):
        with pytest.raises(StoreConflict):
            await store.commit([change])

    stored = await store.load("s1")
    assert stored is not None
    assert (stored.head.schema, stored.head.title, stored.seq) == (SCHEMA + 1, None, 2)
    assert await store.delete("s1")


# ---- TX-07, TX-08


async def test_tx07_nobody_else_may_read_any_of_it(durable: Backend) -> None:
    umask = os.umask(0)
    try:
        async with durable.open() as store:
            await store.commit([creation("s1", 3)])
            await store.health()
            modes = {stat.S_IMODE(path.stat().st_mode) for path in durable.files()}
            folders = [path for path in durable.folder.rglob("*") if path.is_dir()]
    finally:
        os.umask(umask)

    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} <= {0o700}


async def test_tx08_a_link_in_the_place_of_a_file_is_not_followed(
    durable: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with durable.open() as store:
        await store.commit([creation("s1", 3), creation("s2", 3)])
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "target"
    place = _place(durable, "s1")
    place.rename(elsewhere)
    content = elsewhere.read_bytes()
    place.symlink_to(elsewhere)

    if durable.name == "sqlite":  # all sessions lie behind the link
        with pytest.RaisesGroup(StoreBroken, flatten_subgroups=True, allow_unwrapped=True):
            async with durable.open():
                pass
    else:
        async with durable.open() as store:
            with pytest.raises(StoreUnreadable):
                await store.load("s1")
            assert await store.tip("s2") == 3

    assert elsewhere.read_bytes() == content
    assert place.is_symlink()


def _place(backend: Backend, session: str) -> Path:
    if backend.name == "sqlite":
        return backend.folder / DATABASE
    return backend.folder / DIRECTORY / "sessions" / name_of(session)


# ---- TX-09


async def test_tx09_a_long_log_is_read_in_pages_of_a_bounded_size(store: Store) -> None:
    body = b'"' + b"x" * 200_000 + b'"'
    await store.commit([creation("s1")])
    for start in range(1, 41, 8):
        await store.commit([Change("s1", entries(start, start + 7, body))])

    after, sizes = 0, list[int]()
    while True:
        page = await store.entries("s1", after, max_bytes=2**19)
        sizes.append(sum(len(entry.body) for entry in page.entries))
        after = page.entries[-1].seq
        if not page.more:
            break

    assert after == 40
    assert max(sizes) <= 2**19 + len(body)
    assert len(sizes) >= 13


# ---- TX-15


async def test_tx15_what_was_loaded_is_a_copy(store: Store) -> None:
    head = msgspec.structs.replace(a_head("s1"), labels={"a": "b"})
    await store.commit([Change("s1", entries(1, 2), head, create=True)])
    stored = await store.load("s1")
    assert stored is not None
    stored.head.labels["a"] = "changed"
    head.labels["a"] = "changed too"
    (await store.list())[0].head.labels.clear()
    page = await store.entries("s1")
    page.entries.clear()

    again = await store.load("s1")

    assert again is not None
    assert again.head.labels == {"a": "b"}
    assert (await store.entries("s1")).entries == [an_entry(1), an_entry(2)]
