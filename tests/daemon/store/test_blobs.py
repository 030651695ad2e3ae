"""Blobs on disk: whole or not there, and gone when nobody names them."""

import hashlib
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moorage_daemon.store.disk import Disk, made
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.naming import blobs_named
from moorage_daemon.store.port import Change, Collected, Store, StoreBroken, StoreError
from moorage_daemon.store.sqlite import open_sqlite
from tests.daemon.store.platters import Platter, Step, TestDisk, broken, kill, only_said, power_cut
from tests.daemon.store.samples import an_entry, creation, in_chunks, raw


@pytest.fixture(params=["file", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncGenerator[Store]:
    if kind == "sqlite":
        async with open_sqlite(path / "sessions.db") as database:
            yield database
    else:
        async with open_files(made(path / "store")) as files:
            yield files


def folder(kind: str, path: Path) -> Path:
    return path / ("sessions.db-blobs" if kind == "sqlite" else "store/blobs")


async def test_blobs_survive_a_restart_and_are_collected_after_it(
    kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as store:
        named = (await store.put_blob(in_chunks(b"named"), max_bytes=10)).sha256
        await store.put_blob(in_chunks(b"unnamed"), max_bytes=10)
        entry = an_entry(1, raw({"sha256": named}))
        await store.commit([creation("s1"), Change("s1", (entry,))])

    async with opened(kind, tmp_path) as store:
        assert await store.collect(3600) == Collected(1, 7)  # whoever put it is gone
        part = await store.get_blob(named)
        assert part is not None
        assert part.data == b"named"


async def test_no_directory_is_made_before_there_are_blobs(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store:
        assert await store.get_blob("0" * 64) is None
        assert await store.collect(0) == Collected()

    assert not folder(kind, tmp_path).exists()


async def test_blobs_are_for_their_owner_alone_and_drafts_of_a_crash_go(
    kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some"), max_bytes=10)).sha256
    (folder(kind, tmp_path) / "0123456789abcdef.new").write_bytes(b"half of i")

    async with opened(kind, tmp_path) as store:
        assert await store.get_blob(digest) is not None

    assert [file.name for file in folder(kind, tmp_path).iterdir()] == [digest]
    assert folder(kind, tmp_path).stat().st_mode & 0o777 == 0o700
    assert (folder(kind, tmp_path) / digest).stat().st_mode & 0o777 == 0o600


async def test_a_link_in_the_place_of_a_blob_is_not_followed(kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    async with opened(kind, tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some"), max_bytes=10)).sha256
        (folder(kind, tmp_path) / digest).unlink()
        (folder(kind, tmp_path) / digest).symlink_to(secret)

        with pytest.raises(StoreBroken, match="symbolic link"):
            await store.get_blob(digest)


async def test_a_blob_that_was_cut_short_is_written_anew(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).sha256
        (folder(kind, tmp_path) / digest).write_bytes(b"some")

        assert (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).is_new

        part = await store.get_blob(digest)
        assert part is not None
        assert part.data == b"some bytes"


async def test_a_blob_that_was_damaged_at_its_length_is_written_anew(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(kind, tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).sha256
        (folder(kind, tmp_path) / digest).write_bytes(b"some bites")

        assert (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).is_new

        assert (folder(kind, tmp_path) / digest).read_bytes() == b"some bytes"
        assert "a blob is damaged: it is written anew" in caplog.text
        assert not (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).is_new


async def test_a_blob_that_cannot_be_read_is_written_anew(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).sha256
        (folder(kind, tmp_path) / digest).unlink()
        (folder(kind, tmp_path) / digest).symlink_to("/nowhere")

        assert (await store.put_blob(in_chunks(b"some bytes"), max_bytes=10)).is_new

        assert (folder(kind, tmp_path) / digest).read_bytes() == b"some bytes"
        assert not (folder(kind, tmp_path) / digest).is_symlink()


async def test_nothing_is_collected_while_a_journal_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened("file", tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some"), max_bytes=10)).sha256
        entry = an_entry(1, raw({"sha256": digest}))
        await store.commit([creation("s1"), Change("s1", (entry,)), creation("s2", 1)])
        await store.commit([Change("s1", (an_entry(2),))])
    alter(tmp_path, digest.encode(), b"0" * 64)

    async with opened("file", tmp_path) as store:
        assert await store.collect(0) == Collected()
        assert await store.get_blob(digest) is not None
        assert "no blob can be collected" in caplog.text
        await store.delete("s1")
        assert await store.collect(0) == Collected(1, 4)


def alter(path: Path, old: bytes, new: bytes) -> None:
    """Damage the one journal that holds `old`."""
    holding = [
        journal
        for journal in (path / "store" / "sessions").iterdir()
        if old in journal.read_bytes()
    ]
    (journal,) = holding
    journal.write_bytes(journal.read_bytes().replace(old, new))


async def test_a_part_that_was_cut_off_still_names_its_blobs_until_its_session_goes(
    tmp_path: Path,
) -> None:
    async with opened("file", tmp_path) as store:
        digest = (await store.put_blob(in_chunks(b"some"), max_bytes=10)).sha256
        entry = an_entry(1, raw({"sha256": digest, "mark": "whole"}))
        await store.commit([creation("s1"), creation("s2")])
        await store.commit([Change("s1", (entry,))])
    alter(tmp_path, b"whole", b"hole!")

    for _ in range(2):
        async with opened("file", tmp_path) as store:
            assert await store.tip("s1") == 0
            assert await store.collect(0) == Collected()
    assert list((tmp_path / "store" / "sessions").glob("*.torn"))

    async with opened("file", tmp_path) as store:
        await store.delete("s1")
        assert await store.collect(0) == Collected(1, 4)
    assert not list((tmp_path / "store" / "sessions").glob("*.torn"))


# ---- crashes of the store of files; the database keeps its blobs by the same code

BLOBS = 25
IMAGES = 120
SEGMENT = 2**13


async def record(path: Path, careless: frozenset[str]) -> list[Step]:
    platter = Platter(forgets=only_said(*careless))
    chance = random.Random(3)
    path.mkdir()
    async with open_files(TestDisk(path, platter), SEGMENT) as store:
        await store.commit([creation("s1")])
        for seq in range(1, BLOBS + 1):
            data = b"%d " % seq * chance.choice([1, 500, 2000])
            blob = await store.put_blob(in_chunks(data), max_bytes=2**20)
            await store.put_blob(in_chunks(b"unnamed" + data), max_bytes=2**20)
            entry = an_entry(seq, raw({"sha256": blob.sha256}))
            await store.commit([Change("s1", (entry,))])
            platter.ack(seq)
            if seq % 5 == 0:
                await store.collect(0)
    return platter.steps


def named_and_whole(path: Path) -> int:
    """How many entries there are; raises if one of them names a blob that is not there."""
    disk = Disk(path)
    shelf = open_shelf(disk, SEGMENT)
    try:
        found = Reader(shelf).entries("s1", 0, BLOBS + 1, 2**30, None).entries
        for entry in found:
            (digest,) = blobs_named(entry)
            data = (path / "blobs" / digest).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
        return len(found)
    finally:
        shelf.close()
        disk.close()


async def losses(tmp_path: Path, careless: frozenset[str] = frozenset()) -> int:
    steps = await record(tmp_path / "store", careless)
    chance = random.Random(5)
    bad = 0
    for number in range(IMAGES):
        image = tmp_path / f"image{number}"
        acked = power_cut(steps, chance.randrange(len(steps) + 1), image, chance)
        try:
            bad += named_and_whole(image) < acked
        except (StoreError, AssertionError, OSError):
            bad += 1
    return bad


async def test_after_any_power_cut_every_blob_that_is_named_is_whole(tmp_path: Path) -> None:
    assert await losses(tmp_path) == 0


@pytest.mark.parametrize("careless", ["sync", "names"])
async def test_the_power_cuts_do_take_blobs_that_were_not_synced(
    tmp_path: Path, careless: str
) -> None:
    assert await losses(tmp_path, frozenset({careless})) > 0


async def test_a_blob_that_a_killed_process_renamed_is_durable_before_it_counts_as_kept(
    tmp_path: Path,
) -> None:
    platter = Platter()
    (tmp_path / "store").mkdir()
    async with open_files(TestDisk(tmp_path / "store", platter)) as store:
        blob = await store.put_blob(in_chunks(b"kept"), max_bytes=9)
    renamed = next(n for n, s in enumerate(platter.steps) if s.new == blob.sha256)
    steps = platter.steps[: renamed + 1]
    kill(steps, len(steps), tmp_path / "killed")

    after = Platter()
    async with open_files(TestDisk(tmp_path / "killed", after)) as store:
        assert not (await store.put_blob(in_chunks(b"kept"), max_bytes=9)).is_new
        steps += after.steps

    for seed in range(20):
        image = tmp_path / f"{seed}"
        power_cut(steps, len(steps), image, random.Random(seed))
        assert (image / "blobs" / blob.sha256).read_bytes() == b"kept"


async def test_a_blob_whose_name_could_not_be_synced_is_not_taken_for_kept(tmp_path: Path) -> None:
    platter = Platter()
    (tmp_path / "store").mkdir()

    def fail_names(step: Step) -> None:
        if step.what == "names" and step.folder == "blobs":
            raise broken(step)

    async with open_files(TestDisk(tmp_path / "store", platter)) as store:
        await store.put_blob(in_chunks(b"first"), max_bytes=9)
        platter.before = fail_names
        with pytest.raises(StoreBroken):
            await store.put_blob(in_chunks(b"kept"), max_bytes=9)
        platter.before = lambda _: None

        assert (await store.put_blob(in_chunks(b"kept"), max_bytes=9)).is_new
