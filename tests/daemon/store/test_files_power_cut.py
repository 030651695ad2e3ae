"""No crash takes anything that was acknowledged from the store of files, or leaves half of it.

The control arms show that this can fail: the same store on a disk that only says that it synced,
and recoveries that are done wrong.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage_daemon.store.files.opening import open_shelf
from moorage_daemon.store.files.pieces import drafted
from moorage_daemon.store.files.reading import Reader
from moorage_daemon.store.files.shelf import Shelf
from moorage_daemon.store.port import Change
from tests.daemon.store.crashes import (
    FILES,
    SOUND,
    ForgetsRecreations,
    Plant,
    first_loss,
    forgets_copies,
    removes_first,
)
from tests.daemon.store.lives import COMMITS, SEGMENT, files_life
from tests.daemon.store.platters import Platter, Step, TestDisk, kill, only_said, power_cut
from tests.daemon.store.samples import a_head, creation, entries, raw, seqs


IMAGES = 100
Forgets = Callable[[Step], bool]


async def loss(
    tmp_path: Path, forgets: Forgets = SOUND.forgets, plant: Plant | None = None
) -> str | None:
    """What is wrong with the first bad image of a life, after one crash or after two."""
    life = await files_life(tmp_path / "store", forgets)
    assert sum(step.what == "ack" for step in life.steps) > 3 * COMMITS
    return first_loss(FILES, life, tmp_path, IMAGES, plant)


async def test_no_power_cut_takes_what_was_acknowledged_or_leaves_half_of_it(
    tmp_path: Path,
) -> None:
    assert await loss(tmp_path) is None


async def test_no_power_cut_in_a_recovery_takes_what_was_told(tmp_path: Path) -> None:
    assert await loss(tmp_path, plant=SOUND) is None


@pytest.mark.parametrize(
    "forgets",
    [only_said("sync"), only_said("names"), ForgetsRecreations(), forgets_copies],
    ids=["sync", "names", "recreations", "copies"],
)
async def test_the_power_cuts_do_take_what_was_not_synced(tmp_path: Path, forgets: Forgets) -> None:
    assert await loss(tmp_path, forgets)


@pytest.mark.parametrize(
    "plant",
    [Plant(only_said("sync")), Plant(only_said("names")), Plant(reorder=removes_first)],
    ids=["sync", "names", "order"],
)
async def test_the_power_cuts_do_take_what_a_recovery_does_wrong(
    tmp_path: Path, plant: Plant
) -> None:
    assert await loss(tmp_path, plant=plant)


def test_a_copy_that_a_killed_process_put_in_place_is_durable_before_a_commit_follows_it(
    tmp_path: Path,
) -> None:
    platter = Platter()
    (tmp_path / "store").mkdir()
    shelf = open_shelf(TestDisk(tmp_path / "store", platter))
    write(shelf, creation("s1", 9))
    copy = shelf.begin_trim("s1", 5)
    assert copy is not None
    shelf.place(copy)
    shelf.close()
    renamed = max(n for n, s in enumerate(platter.steps) if s.what == "rename" and s.folder)
    steps = platter.steps[: renamed + 1]
    kill(steps, len(steps), tmp_path / "killed")

    after = Platter()
    shelf = open_shelf(TestDisk(tmp_path / "killed", after))
    write(shelf, Change("s1", entries(10, 10)))
    steps += after.steps
    shelf.close()

    for seed in range(20):
        image = tmp_path / f"{seed}"
        power_cut(steps, len(steps), image, random.Random(seed))
        shelf = open_shelf(TestDisk(image, Platter()))
        assert shelf.damaged == {}
        assert seqs(Reader(shelf).entries("s1", 0, 99, 10**6, None)) == list(range(5, 11))
        shelf.close()


def test_segments_are_given_up_one_after_the_other(tmp_path: Path) -> None:
    """A session is removed in the first and comes again in the second: only the first may stay."""
    platter = Platter()
    (tmp_path / "store").mkdir()
    shelf = open_shelf(TestDisk(tmp_path / "store", platter), SEGMENT)
    write(shelf, creation("s1", 9))
    shelf.remove("s1")
    others = (f"o{number}" for number in range(9))
    big = entries(1, 1, raw({"x": "x" * (SEGMENT // 8)}))
    write(shelf, *(Change(other, big, a_head(other), create=True) for other in others))
    shelf.settle_some(lambda: False)
    write(shelf, creation("s1", 2))
    shelf.settle_all(lambda: False)
    shelf.close()
    given_up = [n for n, s in enumerate(platter.steps) if s.new.endswith(".spare")]
    assert len(given_up) == 2

    for seed in range(20):
        image = tmp_path / f"{seed}"
        power_cut(platter.steps, given_up[1] + 1, image, random.Random(seed))
        shelf = open_shelf(TestDisk(image, Platter()), SEGMENT)
        assert shelf.standing.keys() == {"s1", *(f"o{number}" for number in range(9))}
        assert seqs(Reader(shelf).entries("s1", 0, 99, 10**6, None)) == [1, 2]
        shelf.close()


def write(shelf: Shelf, *changes: Change) -> None:
    shelf.commit(changes, [drafted(change) for change in changes])


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
