"""What every store promises, checked on all of them."""

import hashlib
from collections.abc import AsyncGenerator

import msgspec
import pytest
import trio
import trio.testing

from moorage_daemon.store.model import SCHEMA, Entry, Kind, Life
from moorage_daemon.store.port import (
    MAX_BLOB,
    BlobMismatch,
    BlobTooLarge,
    Change,
    Collected,
    Missing,
    Problem,
    Report,
    Store,
    StoreCapped,
    StoreConflict,
)
from tests.daemon.store.samples import (
    HOSTILE,
    a_head,
    all_entries,
    an_entry,
    creation,
    entries,
    in_chunks,
    raw,
    seqs,
)


# ---- creating and appending


async def test_a_created_session_is_loaded_as_it_was_written(store: Store) -> None:
    head = a_head("s1", title="a title")

    await store.commit([Change("s1", entries(1, 3), head, create=True)])

    stored = await store.load("s1")
    assert stored is not None
    assert (stored.head, stored.seq) == (head, 3)
    assert (await store.entries("s1")).entries == list(entries(1, 3))


async def test_a_session_may_begin_without_entries(store: Store) -> None:
    await store.commit([creation("s1")])

    assert await store.tip("s1") == 0
    assert (await store.entries("s1")).entries == []


async def test_creating_an_existing_session_is_refused(store: Store) -> None:
    await store.commit([creation("s1", 2)])

    with pytest.raises(StoreConflict) as caught:
        await store.commit([Change("s1", entries(1, 1), a_head("s1", title="x"), create=True)])

    assert caught.value.session == "s1"
    stored = await store.load("s1")
    assert stored is not None
    assert (stored.head.title, stored.seq) == (None, 2)


async def test_creating_needs_a_head(store: Store) -> None:
    with pytest.raises(StoreConflict):
        await store.commit([Change("s1", entries(1, 1), create=True)])

    assert await store.load("s1") is None


async def test_a_head_of_another_session_is_refused(store: Store) -> None:
    with pytest.raises(StoreConflict):
        await store.commit([Change("s1", head=a_head("s2"), create=True)])

    assert await store.list() == []


async def test_changing_an_unknown_session_is_refused(store: Store) -> None:
    for change in (Change("s1", entries(1, 1)), Change("s1", head=a_head("s1"))):
        with pytest.raises(StoreConflict):
            await store.commit([change])

    assert await store.load("s1") is None
    assert (await store.entries("s1")).entries == []


@pytest.mark.parametrize("first", [1, 2, 4, 100], ids=["replay", "last", "gap", "far"])
async def test_entries_that_do_not_follow_the_last_are_refused(store: Store, first: int) -> None:
    await store.commit([creation("s1", 2)])

    with pytest.raises(StoreConflict) as caught:
        await store.commit([Change("s1", entries(first, first + 1))])

    assert caught.value.session == "s1"
    assert seqs(await store.entries("s1")) == [1, 2]


async def test_a_gap_inside_a_change_is_refused(store: Store) -> None:
    await store.commit([creation("s1", 1)])

    with pytest.raises(StoreConflict):
        await store.commit([Change("s1", (an_entry(2), an_entry(4)))])

    assert await store.tip("s1") == 1


async def test_the_same_commit_twice_is_refused_and_changes_nothing(store: Store) -> None:
    await store.commit([creation("s1")])
    await store.commit([Change("s1", entries(1, 2))])

    with pytest.raises(StoreConflict):
        await store.commit([Change("s1", entries(1, 2))])

    assert seqs(await store.entries("s1")) == [1, 2]


async def test_a_refused_commit_leaves_the_store_ready_for_the_right_one(store: Store) -> None:
    await store.commit([creation("s1", 1)])
    with pytest.raises(StoreConflict):
        await store.commit([Change("s1", entries(5, 5))])

    await store.commit([Change("s1", entries(2, 2))])

    assert await store.tip("s1") == 2


async def test_one_bad_change_keeps_all_others_from_being_written(store: Store) -> None:
    await store.commit([creation("s1", 1), creation("s2", 1)])

    with pytest.raises(StoreConflict) as caught:
        await store.commit(
            [
                Change("s1", entries(2, 3), a_head("s1", title="new")),
                creation("s3", 1),
                Change("s2", entries(3, 3)),
            ]
        )

    assert caught.value.session == "s2"
    assert [(stored.head.id, stored.head.title, stored.seq) for stored in await store.list()] == [
        ("s1", None, 1),
        ("s2", None, 1),
    ]


async def test_several_changes_of_a_session_in_one_commit_continue_each_other(
    store: Store,
) -> None:
    await store.commit([creation("s1", 2), Change("s1", entries(3, 4)), Change("s1")])

    assert seqs(await store.entries("s1")) == [1, 2, 3, 4]


async def test_a_commit_of_nothing_is_fine(store: Store) -> None:
    await store.commit([])

    assert await store.list() == []


async def test_a_commit_may_be_large(store: Store) -> None:
    await store.commit([creation("s1", 1301), creation("s2", 77)])

    assert await all_entries(store, "s1") == list(entries(1, 1301))
    assert await all_entries(store, "s2") == list(entries(1, 77))


# ---- ids and numbers of sessions


@pytest.mark.parametrize("session", ["\ud800", "a\udfffb"])
async def test_an_id_that_is_no_text_is_refused_and_unknown(store: Store, session: str) -> None:
    with pytest.raises(StoreConflict, match="no text"):
        await store.commit([creation(session)])

    assert await store.load(session) is None
    assert await store.tip(session) is None
    assert (await store.entries(session)).entries == []
    assert not await store.delete(session)


async def test_hostile_ids_are_sessions_of_their_own(store: Store) -> None:
    for number, session in enumerate(HOSTILE):
        await store.commit([creation(session, number)])

    assert {stored.head.id: stored.seq for stored in await store.list()} == {
        session: number for number, session in enumerate(HOSTILE)
    }
    for number, session in enumerate(HOSTILE):
        assert len((await store.entries(session)).entries) == number
        assert await store.delete(session)
        assert len(await store.list()) == len(HOSTILE) - number - 1


async def test_a_cap_holds_in_the_step_that_creates(store: Store) -> None:
    await store.commit([creation("s1"), creation("s2")])

    with pytest.raises(StoreCapped) as caught:
        await store.commit([capped("s3", 3), Change("s1", entries(1, 1)), capped("s4", 3)])
    assert caught.value.session == "s4"
    assert await store.tip("s1") == 0

    await store.commit([capped("s3", 3)])
    with pytest.raises(StoreCapped):
        await store.commit([capped("s4", 3)])
    await store.delete("s1")
    await store.commit([capped("s4", 3), Change("s4", entries(1, 1))])
    assert [stored.head.id for stored in await store.list()] == ["s2", "s3", "s4"]


async def test_of_many_creators_as_many_get_in_as_the_cap_allows(store: Store) -> None:
    refused: list[str] = []

    async def create(session: str) -> None:
        try:
            await store.commit([capped(session, 3)])
        except StoreCapped as error:
            refused.append(error.session)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(create, f"s{number}")

    assert (len(refused), len(await store.list())) == (17, 3)


def capped(session: str, cap: int) -> Change:
    return msgspec.structs.replace(creation(session), cap=cap)


# ---- heads


async def test_a_head_is_written_only_when_it_is_given(store: Store) -> None:
    await store.commit([creation("s1")])
    await store.commit([Change("s1", entries(1, 1))])
    before = await store.load("s1")

    await store.commit([Change("s1", head=a_head("s1", title="new"))])

    after = await store.load("s1")
    assert before is not None
    assert after is not None
    assert (before.head.title, before.seq) == (None, 1)
    assert (after.head.title, after.seq) == ("new", 1)


async def test_what_was_loaded_or_written_is_a_copy(store: Store) -> None:
    head = a_head("s1")
    await store.commit([Change("s1", head=head, create=True)])
    head.labels["written"] = "later"
    first = await store.load("s1")
    assert first is not None
    first.head.labels["loaded"] = "later"

    second = await store.load("s1")

    assert second is not None
    assert second.head.labels == {}


async def test_loading_tells_absent_from_there(store: Store) -> None:
    await store.commit([creation("s1")])

    assert await store.load("s1") is not None
    assert await store.load("s2") is None
    assert await store.load("") is None
    assert await store.tip("s2") is None


async def test_a_killed_session_stays_killed(store: Store) -> None:
    killed = msgspec.structs.replace(a_head("s1"), life=Life.KILLED, open_turns=(3, 4))
    await store.commit([creation("s1")])
    await store.commit([Change("s1", head=killed)])

    stored = await store.load("s1")

    assert stored is not None
    assert stored.head == killed


async def test_a_session_of_a_newer_schema_is_read_and_never_written(store: Store) -> None:
    newer = a_head("s1", schema=SCHEMA + 1)
    await store.commit([Change("s1", entries(1, 1), newer, create=True), creation("s2")])

    for change in (Change("s1", entries(2, 2)), Change("s1", head=a_head("s1"))):
        with pytest.raises(StoreConflict, match="schema 2"):
            await store.commit([Change("s2", entries(1, 1)), change])

    assert [(stored.head.schema, stored.seq) for stored in await store.list()] == [(2, 1), (1, 0)]
    assert seqs(await store.entries("s1")) == [1]
    assert await store.delete("s1")


# ---- bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        raw({"text": "naïve 水 🙂 \u2028"}),
        b'{"text": "spaces  and \\u00e9scapes stay"}',
        b'{"nul": "\\u0000"}',
        b"\x00\xff not even text \x00",
        b'{"unknown": [1.0, 1e400, 123456789012345678901234567890]}',
    ],
    ids=["empty", "object", "unicode", "spelling", "escaped-nul", "bytes", "numbers"],
)
async def test_a_body_stays_byte_for_byte(store: Store, body: bytes) -> None:
    await store.commit([creation("s1")])

    await store.commit([Change("s1", (an_entry(1, body, kind="kind-of-tomorrow"),))])

    (found,) = (await store.entries("s1")).entries
    assert (found.kind, found.body) == ("kind-of-tomorrow", body)


async def test_entries_of_every_kind_stay_byte_for_byte(store: Store) -> None:
    """Those of tomorrow as well as those of today, in a shape of tomorrow."""
    body = raw({"sha256": "0" * 64, "of": ["tomorrow", 1.0]})
    kinds = [*Kind, "kind-of-tomorrow"]
    log = tuple(an_entry(seq, body, kind=kind) for seq, kind in enumerate(kinds, 1))

    await store.commit([creation("s1"), Change("s1", log)])

    assert tuple((await store.entries("s1")).entries) == log


@pytest.mark.parametrize("kind", [Kind.ARTIFACT, Kind.UPLOAD, "kind-of-tomorrow"])
async def test_a_blob_stays_as_long_as_an_entry_of_any_kind_names_it(
    store: Store, kind: str
) -> None:
    named = await store.put_blob(in_chunks(b"named"), max_bytes=100)
    await store.put_blob(in_chunks(b"not named"), max_bytes=100)
    body = raw({"sha256": named.sha256, "size": 5, "name": "n"})
    await store.commit([creation("s1"), Change("s1", (an_entry(1, body, kind=kind),))])

    assert (await store.collect(-1)).blobs == 1
    assert await store.get_blob(named.sha256) is not None
    await store.delete("s1")
    assert (await store.collect(-1)).blobs == 1


async def test_a_body_may_be_a_mebibyte(store: Store) -> None:
    body = b'"' + bytes(range(256)) * 4096 + b'"'
    await store.commit([creation("s1"), Change("s1", (an_entry(1, body),))])

    (found,) = (await store.entries("s1")).entries

    assert found.body == body


@pytest.mark.parametrize("generation", [None, 0, 1, 2**53 + 1, 2**63 - 1])
async def test_numbers_keep_their_value(store: Store, generation: int | None) -> None:
    entry = Entry(1, 1763700000.123456, Kind.VERDICT, b"{}", generation)

    await store.commit([creation("s1"), Change("s1", (entry,))])

    assert (await store.entries("s1")).entries == [entry]


async def test_names_may_hold_any_text(store: Store) -> None:
    entry = Entry(1, 0.0, "kind'\x00水", b"{}", None, "origin\x00é")

    await store.commit([creation("sitzung-é"), Change("sitzung-é", (entry,))])

    assert (await store.entries("sitzung-é")).entries == [entry]


# ---- pages


async def test_a_page_holds_what_follows_a_number(store: Store) -> None:
    await store.commit([creation("s1", 5)])

    assert seqs(await store.entries("s1")) == [1, 2, 3, 4, 5]
    assert seqs(await store.entries("s1", 3)) == [4, 5]
    assert seqs(await store.entries("s1", 5)) == []
    assert seqs(await store.entries("s1", 99)) == []
    assert seqs(await store.entries("s1", -7)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("limit", "more"), [(1, True), (4, True), (5, False), (6, False)])
async def test_a_page_ends_at_its_limit_and_says_if_more_follow(
    store: Store, limit: int, more: bool
) -> None:
    await store.commit([creation("s1", 5)])

    page = await store.entries("s1", limit=limit)

    assert seqs(page) == list(range(1, min(limit, 5) + 1))
    assert (page.more, page.gap) == (more, False)


@pytest.mark.parametrize(
    ("max_bytes", "found"), [(0, 1), (9, 1), (10, 2), (25, 3), (49, 5), (1000, 5)]
)
async def test_a_page_ends_with_the_entry_that_exceeds_its_bytes(
    store: Store, max_bytes: int, found: int
) -> None:
    await store.commit([creation("s1"), Change("s1", entries(1, 5, b"0123456789"))])

    page = await store.entries("s1", max_bytes=max_bytes)

    assert len(page.entries) == found
    assert page.more == (found < 5)


async def test_a_page_of_some_kinds_passes_over_the_others(store: Store) -> None:
    kinds = ["prompt", "message", "message", "verdict", "prompt", "message"]
    log = tuple(an_entry(seq, kind=kind) for seq, kind in enumerate(kinds, 1))
    await store.commit([creation("s1"), Change("s1", log)])

    turns = await store.entries("s1", kinds=frozenset({"prompt", "verdict"}), limit=3)
    first = await store.entries("s1", kinds=frozenset({"prompt", "verdict"}), limit=2)
    nothing = await store.entries("s1", kinds=frozenset())

    assert (seqs(turns), turns.more) == ([1, 4, 5], False)
    assert (seqs(first), first.more) == ([1, 4], True)
    assert (seqs(nothing), nothing.more, nothing.gap) == ([], False, False)


async def test_pages_of_one_session_hold_nothing_of_another(store: Store) -> None:
    await store.commit([creation("s1", 2), creation("s10", 3), creation("S1", 1)])

    assert seqs(await store.entries("s1")) == [1, 2]


# ---- lists and deletion


async def test_all_sessions_are_listed_by_id(store: Store) -> None:
    await store.commit([creation("b", 2), creation("c"), creation("a", 1), creation("B", 3)])

    listed = await store.list()

    assert [(stored.head.id, stored.seq) for stored in listed] == [
        ("B", 3),
        ("a", 1),
        ("b", 2),
        ("c", 0),
    ]


async def test_deletion_leaves_nothing_of_a_session(store: Store) -> None:
    await store.commit([creation("s1", 3), creation("s2", 1)])

    assert await store.delete("s1")

    assert await store.load("s1") is None
    assert await store.tip("s1") is None
    assert seqs(await store.entries("s1")) == []
    assert [stored.head.id for stored in await store.list()] == ["s2"]
    assert not await store.delete("s1")


async def test_a_deleted_id_starts_anew(store: Store) -> None:
    await store.commit([creation("s1", 3)])
    await store.delete("s1")
    with pytest.raises(StoreConflict):
        await store.commit([Change("s1", entries(4, 4))])

    await store.commit([creation("s1", 1)])

    assert seqs(await store.entries("s1")) == [1]


# ---- trimming


@pytest.mark.parametrize(
    ("before", "left"),
    [(-1, 1), (0, 1), (1, 1), (2, 2), (7, 7), (9, 9), (10, 9), (1000, 9)],
)
async def test_a_trimmed_log_begins_later_and_never_loses_its_end(
    store: Store, before: int, left: int
) -> None:
    await store.commit([creation("s1", 9), creation("s2", 9)])

    assert await store.trim("s1", before) == left - 1

    stored = await store.load("s1")
    assert stored is not None
    assert (stored.first, stored.seq) == (left, 9)
    assert [(found.first, found.seq) for found in await store.list()] == [(left, 9), (1, 9)]
    assert seqs(await store.entries("s1")) == list(range(left, 10))
    assert seqs(await store.entries("s2")) == list(range(1, 10))
    await store.commit([Change("s1", entries(10, 10))])
    assert await store.tip("s1") == 10


async def test_a_page_that_begins_behind_a_trimmed_part_says_so(store: Store) -> None:
    await store.commit([creation("s1", 9)])
    await store.trim("s1", 5)

    for after, gap in [(-3, True), (0, True), (3, True), (4, False), (8, False), (9, False)]:
        page = await store.entries("s1", after)
        assert (page.gap, seqs(page)) == (gap, list(range(max(after + 1, 5), 10)))
    assert (await store.entries("s1", 2, kinds=frozenset({"none"}))).gap


async def test_a_log_may_be_trimmed_again_and_again(store: Store) -> None:
    await store.commit([creation("s1")])
    for seq in range(1, 61):
        await store.commit([Change("s1", entries(seq, seq), a_head("s1", title=f"{seq}"))])
        if seq % 10 == 0:
            assert await store.trim("s1", seq - 4) == (5 if seq == 10 else 10)
            assert await store.trim("s1", seq - 4) == 0
            await store.reopen()

    assert await all_entries(store, "s1", after=55) == list(entries(56, 60))
    stored = await store.load("s1")
    assert stored is not None
    assert (stored.head.title, stored.first, stored.seq) == ("60", 56, 60)


async def test_a_long_log_is_trimmed_while_it_and_others_grow(store: Store) -> None:
    await store.commit([creation("s1", 700), creation("s2")])
    removed = list[int]()

    async def trim() -> None:
        removed.append(await store.trim("s1", 651))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trim)
        for seq in range(1, 21):
            both = [Change("s1", entries(700 + seq, 700 + seq)), Change("s2", entries(seq, seq))]
            await store.commit(both)

    assert removed == [650]
    await store.reopen()
    assert await all_entries(store, "s1", 650) == list(entries(651, 720))
    assert await all_entries(store, "s2") == list(entries(1, 20))


async def test_what_is_not_there_and_what_is_newer_is_not_trimmed(store: Store) -> None:
    await store.commit([creation("s2"), Change("s1", entries(1, 5), a_head("s1", schema=2), True)])

    assert await store.trim("s0", 5) == await store.trim("s2", 5) == 0
    with pytest.raises(StoreConflict, match="schema 2"):
        await store.trim("s1", 3)
    assert seqs(await store.entries("s1")) == [1, 2, 3, 4, 5]


async def test_trimming_takes_names_of_blobs_with_it(store: Store) -> None:
    first = (await store.put_blob(in_chunks(b"first"), max_bytes=10)).sha256
    last = (await store.put_blob(in_chunks(b"last"), max_bytes=10)).sha256
    await store.commit([creation("s1")])
    await store.commit([Change("s1", (naming(1, first), an_entry(2), naming(3, last)))])

    await store.trim("s1", 2)

    assert await store.collect(0) == Collected(1, 5)
    assert await whole(store, last) == b"last"


async def test_a_check_tells_whose_entries_name_a_blob_that_is_not_there(store: Store) -> None:
    there = await store.put_blob(in_chunks(b"there"), max_bytes=9)
    await store.commit([creation("s1"), creation("s2"), creation("s3")])
    first, second = "1" * 64, "2" * 64
    await store.commit(
        [
            Change("s1", (naming(1, first), naming(2, second), naming(3, first))),
            Change("s2", (naming(1, there.sha256),)),
            Change("s3", (naming(1, first),)),
        ]
    )

    found = (await store.check()).problems

    assert found == [
        Problem(f"the blob {first} is missing", missing=Missing(first, ("s1", "s3"))),
        Problem(f"the blob {second} is missing", missing=Missing(second, ("s1",))),
    ]


@pytest.mark.parametrize("body", [b'{"a":', b"{{", b"[1]", b"17", b'{"a":"\xff"}', b""])
async def test_a_check_names_the_session_of_an_entry_that_is_no_object(
    store: Store, body: bytes
) -> None:
    await store.commit([creation("s1", 2), creation("s2", 2), creation("s3", 2)])
    await store.commit([Change("s2", (an_entry(3, body), an_entry(4, body), an_entry(5)))])

    (problem,) = (await store.check()).problems

    assert problem.session == "s2"
    assert problem.problem.startswith("its entry 3")


async def test_a_sound_store_has_no_problems_and_compacts_without_loss(store: Store) -> None:
    blob = await store.put_blob(in_chunks(b"x" * 300_000), max_bytes=2**20)
    await store.commit([creation("s1", 300), creation("s2"), creation("s3", 9)])
    await store.commit([Change("s2", (naming(1, blob.sha256),))])
    await store.trim("s3", 5)

    await store.compact()

    assert await store.check() == Report(3, 306, 1, [])
    assert await store.damaged() == []
    assert await all_entries(store, "s1") == list(entries(1, 300))


# ---- blobs


async def whole(store: Store, digest: str) -> bytes:
    """All of a blob, part by part."""
    found = b""
    while (part := await store.get_blob(digest, len(found), 70_000)) and part.data:
        found += part.data
    return found


def naming(seq: int, digest: str) -> Entry:
    return an_entry(seq, raw({"uri": "x", "deep": [{"sha256": digest}]}), kind="of-tomorrow")


@pytest.mark.parametrize("size", [0, 1, 2**18, 700_001])
async def test_a_blob_comes_back_by_its_digest(store: Store, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    digest = hashlib.sha256(data).hexdigest()

    blob = await store.put_blob(in_chunks(data), max_bytes=size, sha256=digest)

    assert (blob.sha256, blob.size, blob.is_new) == (digest, size, True)
    assert await whole(store, digest) == data
    part = await store.get_blob(digest, size // 2, 10)
    assert part is not None
    assert (part.data, part.size) == (data[size // 2 :][:10], size)


async def test_the_same_bytes_are_kept_once(store: Store) -> None:
    first = await store.put_blob(in_chunks(b"the same", 3), max_bytes=100)
    again = await store.put_blob(in_chunks(b"the same", 5), max_bytes=100)

    assert (first.is_new, again.is_new) == (True, False)
    assert (first.sha256, first.size) == (again.sha256, again.size)


async def test_a_blob_that_is_too_large_is_not_kept(store: Store) -> None:
    data = b"x" * 600_000

    with pytest.raises(BlobTooLarge):
        await store.put_blob(in_chunks(data), max_bytes=599_999)

    assert await store.get_blob(hashlib.sha256(data).hexdigest()) is None


async def test_no_store_keeps_more_than_a_file_can_bring(store: Store) -> None:
    data = b"x" * (MAX_BLOB + 1)

    with pytest.raises(BlobTooLarge):
        await store.put_blob(in_chunks(data, 2**22), max_bytes=2 * MAX_BLOB)

    assert (await store.put_blob(in_chunks(data[1:], 2**22), max_bytes=2 * MAX_BLOB)).is_new


async def test_bytes_with_another_digest_than_was_said_are_not_kept(store: Store) -> None:
    with pytest.raises(BlobMismatch):
        await store.put_blob(in_chunks(b"these"), max_bytes=100, sha256="0" * 64)

    assert await store.get_blob(hashlib.sha256(b"these").hexdigest()) is None
    assert await store.get_blob("0" * 64) is None


async def test_a_transfer_that_breaks_off_leaves_nothing(store: Store) -> None:
    async def breaking() -> AsyncGenerator[bytes]:
        yield b"x" * 300_000
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        await store.put_blob(breaking(), max_bytes=2**20)

    with trio.CancelScope() as scope:

        async def stalled() -> AsyncGenerator[bytes]:
            yield b"y" * 300_000
            scope.cancel()
            await trio.sleep_forever()

        await store.put_blob(stalled(), max_bytes=2**20)
    assert scope.cancelled_caught
    assert await store.collect(0) == Collected()


@pytest.mark.parametrize(
    "digest", ["", "..", "../lock", "a" * 63, "A" * 64, "a" * 65, "store.json"]
)
async def test_what_is_no_digest_names_no_blob(store: Store, digest: str) -> None:
    await store.put_blob(in_chunks(b"some"), max_bytes=10)

    assert await store.get_blob(digest) is None


async def test_a_blob_that_an_entry_names_stays_and_the_others_go(store: Store) -> None:
    kept = (await store.put_blob(in_chunks(b"kept"), max_bytes=10)).sha256
    shared = (await store.put_blob(in_chunks(b"shared"), max_bytes=10)).sha256
    unnamed = (await store.put_blob(in_chunks(b"unnamed"), max_bytes=10)).sha256
    await store.commit([creation("s1"), creation("s2")])
    await store.commit([Change("s1", (naming(1, kept), naming(2, shared)))])
    await store.commit([Change("s2", (naming(1, shared),))])

    assert await store.collect(0) == Collected(1, len(b"unnamed"))

    assert await store.get_blob(unnamed) is None
    assert await whole(store, kept) == b"kept"
    assert await store.delete("s1")
    assert await store.collect(0) == Collected(1, len(b"kept"))
    assert await store.get_blob(kept) is None
    assert await whole(store, shared) == b"shared"
    assert await store.delete("s2")
    assert await store.collect(0) == Collected(1, len(b"shared"))
    assert await store.collect(0) == Collected()


async def test_a_blob_is_not_collected_before_whoever_used_it_can_name_it(store: Store) -> None:
    await store.put_blob(in_chunks(b"put just now"), max_bytes=20)

    assert await store.collect(3600) == Collected()
    assert await store.collect(0) == Collected(1, 12)


async def test_names_in_bodies_of_any_spelling_keep_a_blob(store: Store) -> None:
    digests = [(await store.put_blob(in_chunks(b"%d" % n), max_bytes=10)).sha256 for n in range(5)]
    spellings = [
        b'{"sha256": "%b"}',
        b' {"a":{"sha256"\n:\n"%b"}}',
        b'{"uri":"moorage-upload://sha256/%b"}',
        b'{"uri":"moorage-upload:\\/\\/sha256\\/%b"}',
        b'{"sha512":"%b"}',
    ]
    bodies = [text % digest.encode() for text, digest in zip(spellings, digests, strict=True)]
    log = tuple(an_entry(seq, body) for seq, body in enumerate(bodies, 1))
    await store.commit([Change("s1", log, a_head("s1"), create=True)])

    assert (await store.collect(0)).blobs == 1

    assert [await store.get_blob(digest) is not None for digest in digests] == [True] * 4 + [False]


# ---- the store itself


async def test_a_reopened_store_goes_on(store: Store) -> None:
    await store.commit([creation("s1", 2)])

    await store.reopen()
    await store.commit([Change("s1", entries(3, 3))])

    assert await store.tip("s1") == 3


async def test_a_sound_store_is_healthy_again_and_again(store: Store) -> None:
    await store.health()
    await store.health()


async def test_a_sound_store_is_healthy_to_all_who_ask_at_once(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(store.health)


async def test_the_reserve_is_released_once_and_taken_back(store: Store) -> None:
    assert store.restore_reserve()

    assert store.release_reserve()
    assert not store.release_reserve()
    assert store.restore_reserve()
    assert store.release_reserve()


async def test_reads_run_beside_commits(store: Store) -> None:
    await store.commit([creation("s1")])
    seen: list[int] = []

    async def read() -> None:
        while not seen or seen[-1] < 200:
            seen.append(len(await all_entries(store, "s1")))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for seq in range(1, 201):
                await store.commit([Change("s1", entries(seq, seq))])

    assert seen == sorted(seen)
    assert seen[-1] == 200


async def test_closing_twice_is_once_and_ends_all_use(store: Store) -> None:
    await store.commit([creation("s1")])

    await store.aclose()
    await store.aclose()

    for use in (
        store.commit([]),
        store.load("s1"),
        store.list(),
        store.entries("s1"),
        store.tip("s1"),
        store.delete("s1"),
        store.health(),
        store.reopen(),
        store.put_blob(in_chunks(b"x"), max_bytes=1),
        store.get_blob("0" * 64),
        store.collect(0),
        store.trim("s1", 1),
        store.compact(),
        store.check(),
        store.damaged(),
    ):
        with pytest.raises(trio.ClosedResourceError):
            await use


async def test_every_call_is_a_checkpoint(store: Store) -> None:
    for call in (
        lambda: store.commit([]),
        lambda: store.load("s1"),
        store.list,
        store.health,
        store.aclose,
    ):
        with trio.testing.assert_checkpoints():
            await call()


async def test_beyond_any_number_there_is_no_entry(store: Store) -> None:
    await store.commit([creation("s1")])
    await store.commit([Change("s1", entries(1, 2))])

    assert seqs(await store.entries("s1", 2**64)) == []
