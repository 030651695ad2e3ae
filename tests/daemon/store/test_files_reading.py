"""Pages of a journal: each byte is read about once, and damage is told where it is met."""

from pathlib import Path

import pytest

from moorage_daemon.store.disk import Disk, File
from moorage_daemon.store.files.journal import name_of
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.port import Change, StoreUnreadable
from tests.daemon.store.samples import an_entry, creation, seqs


PAGE = 2**18  # bytes


class MeteredDisk(Disk):
    """Knows how many bytes were read at a time, of it and what is beneath it."""

    def __init__(self, path: Path, sizes: list[int] | None = None) -> None:
        super().__init__(path)
        self.sizes: list[int] = [] if sizes is None else sizes

    def _beneath(self, name: str) -> Disk:
        return MeteredDisk(self.path / name, self.sizes)

    def read(self, file: File, at: int, size: int) -> bytes:
        data = super().read(file, at, size)
        self.sizes.append(len(data))
        return data


@pytest.fixture
def disk(tmp_path: Path) -> MeteredDisk:
    return MeteredDisk(tmp_path)


def long_session(disk: Disk, count: int) -> Shelf:
    """A shelf with a session of so many entries of a kilobyte, each a frame of its journal."""
    shelf = open_shelf(disk)
    log = (an_entry(seq, b'{"x":"%b"}' % (b"x" * 1000)) for seq in range(1, count + 1))
    changes = [creation("s1"), *(Change("s1", (entry,)) for entry in log)]
    shelf.commit(changes, [drafted(change) for change in changes])
    shelf.settle("s1")
    return shelf


def journal(disk: Disk) -> Path:
    return disk.path / "sessions" / name_of("s1")


def test_a_log_that_is_read_page_by_page_is_read_once(disk: MeteredDisk) -> None:
    reader, found = Reader(long_session(disk, 1500)), list[int]()
    disk.sizes.clear()

    while (page := reader.entries("s1", len(found), 500, PAGE, None)).more:
        found += seqs(page)

    assert found + seqs(page) == list(range(1, 1501))
    size = journal(disk).stat().st_size
    assert size <= sum(disk.sizes) < 1.3 * size


def test_a_page_far_behind_is_found_and_then_found_at_once(disk: MeteredDisk) -> None:
    reader = Reader(long_session(disk, 1500))

    assert seqs(reader.entries("s1", 1400, 10, PAGE, None)) == list(range(1401, 1411))
    disk.sizes.clear()
    assert seqs(reader.entries("s1", 1390, 10, PAGE, None)) == list(range(1391, 1401))
    assert sum(disk.sizes) <= PAGE


def test_pages_before_a_damaged_place_can_be_read_and_none_behind_it(disk: MeteredDisk) -> None:
    reader = Reader(long_session(disk, 100))
    content = bytearray(journal(disk).read_bytes())
    content[len(content) // 2] ^= 1
    journal(disk).write_bytes(content)

    assert seqs(reader.entries("s1", 0, 20, PAGE, None)) == list(range(1, 21))
    for after in (20, 90):
        with pytest.raises(StoreUnreadable, match="its journal is damaged at byte"):
            reader.entries("s1", after, 40, PAGE, None)
    assert seqs(reader.entries("s1", 10, 5, PAGE, None)) == list(range(11, 16))


def test_a_journal_that_lacks_a_frame_is_not_read_past_it(disk: MeteredDisk) -> None:
    reader = Reader(long_session(disk, 100))
    lines = journal(disk).read_bytes().splitlines(keepends=True)
    journal(disk).write_bytes(b"".join(lines[:50] + lines[51:]))

    assert seqs(reader.entries("s1", 0, 20, PAGE, None)) == list(range(1, 21))
    with pytest.raises(StoreUnreadable, match="a part of its journal is missing"):
        reader.entries("s1", 40, 20, PAGE, None)
