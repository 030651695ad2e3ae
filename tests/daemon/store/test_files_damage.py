"""Damage in the store of files: found, kept, and nobody else's than its session's."""

from pathlib import Path

import pytest

from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.port import Change, StoreFull, StoreUnreadable
from tests.daemon.store.directories import (
    SMALL,
    copy,
    ends_of_frames,
    journal,
    opened,
    settled,
    write,
)
from tests.daemon.store.platters import Platter, Step, TestDisk, full
from tests.daemon.store.samples import (
    all_entries,
    an_entry,
    creation,
    entries,
    raw,
    seqs,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


async def test_a_journal_cut_anywhere_has_its_whole_frames_and_the_rest_is_kept(
    path: Path,
) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    ends = ends_of_frames(content)
    assert len(ends) == 20
    for cut in [*range(1, 400, 7), *range(ends[-2] - 3, len(content))]:
        journal(path, "s2").write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        async with opened(path) as store:
            if whole == 0:
                with pytest.raises(StoreUnreadable):
                    await store.load("s2")
                continue
            assert await store.tip("s2") == whole - 1
            assert seqs(await all_entries(store, "s2")) == list(range(1, whole))
            await store.commit([Change("s2", (an_entry(whole),))])
        torn = list((path / "sessions").glob("*.torn"))
        rest = content[ends[whole - 1] : cut]
        assert [file.read_bytes() for file in torn] == ([rest] if rest else [])
        for file in torn:
            file.unlink()


async def test_an_empty_journal_is_damage_and_no_absence(path: Path) -> None:
    await settled(path)
    journal(path, "s2").write_bytes(b"")

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable) as caught:
            await store.load("s2")
        assert caught.value.session == "s2"
        assert [stored.head.id for stored in await store.list()] == ["s1", "s3"]
        with pytest.raises(StoreUnreadable):
            await store.commit([creation("s2")])
        assert await store.delete("s2")
        await store.commit([creation("s2", 1)])


async def test_a_damaged_journal_whose_name_does_not_tell_its_id_is_nobody_elses(
    path: Path,
) -> None:
    long = "x" * 1000
    async with opened(path) as store:
        await store.commit([creation(long, 3), creation("s1", 1)])
    journal(path, long).write_bytes(b"damaged")

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable):
            await store.commit([creation(long, 1)])
        with pytest.raises(StoreUnreadable):
            await store.load(long)
        assert await store.load("x" * 999) is None
    assert journal(path, long).read_bytes() == b"damaged"
    async with opened(path) as store:
        assert await store.delete(long)
        assert await store.damaged() == []
        await store.commit([creation(long, 1)])
    async with opened(path) as store:
        assert seqs(await store.entries(long)) == [1]


async def test_no_flipped_bit_before_the_last_frame_goes_unnoticed(path: Path) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    last = ends_of_frames(content)[-2]
    for at in range(0, last, 13):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        journal(path, "s2").write_bytes(flipped)
        async with opened(path) as store:
            with pytest.raises(StoreUnreadable) as caught:
                await all_entries(store, "s2")
            assert caught.value.session == "s2"
            assert seqs(await store.entries("s1")) == [1]
        assert journal(path, "s2").read_bytes() == flipped  # refused is left as it is


async def test_a_frame_that_was_taken_out_whole_is_missed(path: Path) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    ends = ends_of_frames(content)
    journal(path, "s2").write_bytes(content[: ends[4]] + content[ends[5] :])

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable):
            await all_entries(store, "s2")


async def test_a_journal_under_another_sessions_name_is_refused(path: Path) -> None:
    await settled(path)
    journal(path, "s9").write_bytes(journal(path, "s1").read_bytes())

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable, match="another session's"):
            await store.load("s9")
        assert await store.tip("s1") == 1


async def test_a_length_beyond_all_bounds_is_damage_and_asks_for_no_memory(path: Path) -> None:
    await settled(path)
    content = journal(path, "s2").read_bytes()
    journal(path, "s2").write_bytes(content[:9] + b"ffffffff" + content[17:])

    async with opened(path) as store:
        with pytest.raises(StoreUnreadable, match="damaged at byte 0"):
            await all_entries(store, "s2")


async def test_a_journal_that_ends_before_the_log_of_commits_goes_on_is_refused(
    path: Path,
) -> None:
    image = path.with_name("image")
    await settled(path)
    async with opened(path) as store:
        await store.commit([Change("s2", (an_entry(20),)), Change("s3", (an_entry(2),))])
        copy(path, image)
    content = journal(image, "s2").read_bytes()
    journal(image, "s2").write_bytes(content[: ends_of_frames(content)[-3]])

    async with opened(image) as store:
        with pytest.raises(StoreUnreadable):
            await store.load("s2")
        assert await store.tip("s3") == 2


async def test_what_a_crash_left_in_a_journal_is_overwritten_by_the_log_of_commits(
    path: Path,
) -> None:
    image = path.with_name("image")
    await settled(path)
    async with opened(path) as store:
        await store.commit([Change("s2", (an_entry(20, b'{"true":1}'),))])
        copy(path, image)
    with journal(image, "s2").open("ab") as file:
        file.write(b"half of a frame that is longer than the one that counts" * 20)

    async with opened(image) as store:
        assert (await store.entries("s2", 19)).entries == [an_entry(20, b'{"true":1}')]
    assert b"half of" not in journal(image, "s2").read_bytes()
    async with opened(image) as store:
        assert len(await all_entries(store, "s2")) == 20
    assert not list((image / "sessions").glob("*.torn"))


async def crashed(path: Path) -> Path:
    """What a crash leaves after three commits that are in no journal yet: its segment."""
    async with opened(path) as store:
        for number in range(3):
            await store.commit([creation(f"s{number}", 1)])
        copy(path, path.with_name("image"))
    (segment,) = path.with_name("image").glob("commits.[0-9]*")
    return segment


def test_segments_that_a_killed_recovery_left_are_read_in_the_order_of_the_commits(
    path: Path,
) -> None:
    """It wrote all of them anew and removed the first of them, but not the second."""
    disk = TestDisk(path, Platter())
    sessions = [f"s{number}" for number in range(8)]
    shelf = open_shelf(disk, SMALL)
    write(shelf, *(creation(session, 3) for session in sessions))
    write(shelf, *(Change(session, (an_entry(4, raw("x" * 2000)),)) for session in sessions))
    shelf.settle_some(lambda: False)
    write(shelf, *(Change(session, (an_entry(5),)) for session in sessions))
    shelf.close()
    first, second = sorted(path.glob("commits.[0-9]"))
    content = second.read_bytes()

    open_shelf(disk, SMALL).close()
    second.write_bytes(content)

    assert not first.exists()
    shelf = open_shelf(disk, SMALL)
    assert shelf.damaged == {}
    assert [stored.seq for stored in shelf.sessions()] == [5] * 8
    shelf.close()


async def damaged_with_commits_in_the_log(path: Path) -> bytes:
    """A crash left commits of "s2" in the log alone; gives its journal, which is then damaged."""
    await settled(path)
    shelf = open_shelf(TestDisk(path, Platter()), SMALL)
    write(shelf, Change("s2", entries(20, 20)), Change("s3", entries(2, 2)))
    write(shelf, Change("s2", entries(21, 22)))
    shelf.close()
    content = journal(path, "s2").read_bytes()
    journal(path, "s2").write_bytes(b"x" * len(content))
    return content


async def test_commits_of_a_damaged_journal_are_kept_and_mend_it(path: Path) -> None:
    content = await damaged_with_commits_in_the_log(path)

    for _ in range(2):
        async with opened(path) as store:
            assert [problem.session for problem in await store.damaged()] == ["s2"]
            assert await store.tip("s3") == 2

    assert not list(path.glob("commits.[0-9]"))  # the log has forgotten them
    (kept,) = (path / "sessions").glob("*.torn")
    assert kept.name == f"{name_of('s2')}.{len(content)}.commits.torn"
    journal(path, "s2").write_bytes(content + kept.read_bytes())
    async with opened(path) as store:
        assert seqs(await all_entries(store, "s2")) == list(range(1, 23))
        await store.delete("s2")
    assert not kept.exists()


async def test_commits_of_a_damaged_journal_go_with_their_session(path: Path) -> None:
    await damaged_with_commits_in_the_log(path)

    async with opened(path) as store:
        assert await store.delete("s2")

    assert not list((path / "sessions").glob("*.torn"))
    async with opened(path) as store:
        assert [stored.head.id for stored in await store.list()] == ["s1", "s3"]


def no_room_beside_journals(step: Step) -> None:
    if step.what == "write" and ".torn" in step.name:
        raise full(step)


async def test_commits_that_there_is_no_room_to_keep_stay_in_the_log(path: Path) -> None:
    content = await damaged_with_commits_in_the_log(path)
    shelf = open_shelf(TestDisk(path, Platter(before=no_room_beside_journals)), SMALL)
    shelf.settle_some(lambda: True)
    with pytest.raises(StoreFull):
        shelf.settle_all(lambda: False)
    shelf.close()

    async with opened(path):
        pass

    (kept,) = (path / "sessions").glob("*.torn")
    assert kept.name.endswith(f".{len(content)}.commits.torn")


async def test_a_torn_last_commit_is_kept_aside_and_was_never_there(path: Path) -> None:
    segment = await crashed(path)
    content = segment.read_bytes()
    whole = ends_of_frames(content)[:3]
    for cut in range(whole[1] + 30, whole[2], 3):
        segment.write_bytes(content[:cut] + bytes(len(content) - cut))
        found = path.with_name(f"cut{cut}")
        copy(segment.parent, found)

        async with opened(found) as store:
            assert [stored.head.id for stored in await store.list()] == ["s0", "s1"]

        (torn,) = found.glob("*.torn")
        assert torn.read_bytes() == content[whole[1] : cut].rstrip(b"\0")


async def test_a_check_notes_a_torn_last_commit_until_it_is_removed(path: Path) -> None:
    segment = await crashed(path)
    content = segment.read_bytes()
    end = ends_of_frames(content)[2]
    segment.write_bytes(content[: end - 3] + bytes(len(content) - end + 3))

    for _ in range(2):
        async with opened(segment.parent) as store:
            report = await store.check()
        (torn,) = segment.parent.glob("*.torn")
        (note,) = report.notes
        assert f"kept as {torn.name}: look at it, then remove the file" in note
        assert report.problems == []

    for torn in segment.parent.glob("*.torn"):
        torn.unlink()
    async with opened(segment.parent) as store:
        assert (await store.check()).notes == []


async def test_drafts_of_a_process_that_died_over_them_are_removed(path: Path) -> None:
    await settled(path)
    for name in ("commits.1.torn.new", "commits.7.new", f"sessions/{name_of('s1')}.9.torn.new"):
        (path / name).write_bytes(b"half")

    async with opened(path):
        pass

    assert not list(path.rglob("*.new"))


async def test_one_spare_segment_is_kept_however_many_a_crash_brought_back(path: Path) -> None:
    await settled(path)
    for epoch in (1, 3):
        (path / f"commits.{epoch}.spare").write_bytes(bytes(SMALL))

    async with opened(path) as store:
        assert await store.tip("s1") == 1

    assert len(list(path.glob("commits.*"))) == 1
