"""A power cut takes nothing that was acknowledged from the store of files, nor half a commit.

The second arm shows that the first can fail: the same store on a disk that only says that it
synced files, or their names.
"""

import random
from pathlib import Path

import pytest

from moorage_daemon.store.disk import Disk
from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.store import open_files
from moorage_daemon.store.port import Change, StoreError
from tests.daemon.store.platters import Platter, Step, TestDisk, power_cut
from tests.daemon.store.samples import a_head, an_entry, creation


COMMITS = 40
IMAGES = 250
SEGMENT = 2**14  # bytes: lines move into the journals early, so that a short life sees all of it


async def record(path: Path, careless: frozenset[str] = frozenset()) -> list[Step]:
    """Everything the store asks of its disk in a life of commits, deletions and restarts."""
    platter = Platter(careless=careless)
    chance = random.Random(7)
    path.mkdir()
    async with open_files(TestDisk(path, platter), SEGMENT) as store:
        await store.commit([creation("s1"), creation("s2")])
        for seq in range(1, COMMITS + 1):
            body = b'{"x":"%b"}' % (b"x" * chance.choice([20, 900, 5000]))
            entry = (an_entry(seq, body),)
            both = [Change(s, entry, a_head(s, title=f"{seq}")) for s in ("s1", "s2")]
            await store.commit([*both, creation(f"of{seq}", 1)])
            if seq > 1:
                await store.delete(f"of{seq - 1}")
            platter.ack(seq)
            if seq % 15 == 0:
                await store.reopen()
    return platter.steps


def found_in(folder: Path) -> int:
    """How many entries are there; raises if anything is not as it was written."""
    disk = Disk(folder)
    shelf = open_shelf(disk, SEGMENT)
    try:
        assert shelf.damaged == {}
        seqs = {stored.head.id: stored.seq for stored in shelf.sessions()}
        found = seqs.pop("s1", 0)
        assert seqs.pop("s2", 0) == found  # of one commit
        assert set(seqs) - {f"of{found}"} <= {f"of{found - 1}"}
        page = Reader(shelf).entries("s1", 0, COMMITS + 1, 2**30, None)
        assert [entry.seq for entry in page.entries] == list(range(1, found + 1))
        return found
    finally:
        shelf.close()
        disk.close()


async def losses(tmp_path: Path, careless: frozenset[str] = frozenset()) -> int:
    """In how many images something is lost, half there or not readable."""
    steps = await record(tmp_path / "store", careless)
    assert sum(step.what == "ack" for step in steps) == COMMITS
    chance = random.Random(11)
    bad = 0
    for number in range(IMAGES):
        folder = tmp_path / f"image{number}"
        acked = power_cut(steps, chance.randrange(len(steps) + 1), folder, chance)
        try:
            bad += found_in(folder) < acked
        except (StoreError, AssertionError):
            if not careless:
                raise
            bad += 1
    return bad


async def test_no_power_cut_takes_an_acknowledged_entry_or_leaves_half_a_commit(
    tmp_path: Path,
) -> None:
    assert await losses(tmp_path) == 0


@pytest.mark.parametrize("careless", ["sync", "names"])
async def test_the_power_cuts_do_take_what_was_not_synced(tmp_path: Path, careless: str) -> None:
    assert await losses(tmp_path, frozenset({careless})) > 0


@pytest.mark.parametrize("extra", [b"", b"torn"])
def test_a_power_cut_keeps_what_was_synced(tmp_path: Path, extra: bytes) -> None:
    steps = [
        Step("make", "", "a"),
        Step("write", "", "a", 2, b"kept"),
        Step("sync", "", "a"),
        Step("names"),
        Step("ack", at=1),
        Step("truncate", "", "a", 6),
        Step("make", "f", "c"),
        Step("write", "f", "c", 0, extra),
    ]

    acked = power_cut(steps, len(steps), tmp_path / "image", random.Random(1))

    assert acked == 1
    assert (tmp_path / "image" / "a").read_bytes() == b"\0\0kept"
