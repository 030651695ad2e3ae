"""A power cut takes nothing that was acknowledged from the store of files, nor half a commit.

The second arm shows that the first can fail: the same store on a disk that only says that it
synced files, or their names.
"""

import random
from pathlib import Path

import pytest

from moorage_daemon.store.port import StoreError
from tests.daemon.store.lives import COMMITS, found_in_files, record_files
from tests.daemon.store.platters import Step, power_cut


IMAGES = 250


async def losses(tmp_path: Path, careless: frozenset[str] = frozenset()) -> int:
    """In how many images something is lost, half there or not readable."""
    steps = await record_files(tmp_path / "store", careless)
    assert sum(step.what == "ack" for step in steps) == COMMITS
    chance = random.Random(11)
    bad = 0
    for number in range(IMAGES):
        folder = tmp_path / f"image{number}"
        acked = power_cut(steps, chance.randrange(len(steps) + 1), folder, chance)
        try:
            bad += found_in_files(folder) < acked
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
