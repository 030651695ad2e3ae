"""A power cut takes nothing that was acknowledged, whatever order the medium wrote in.

The second arm shows that the first can fail: the same store, told to wait for no fsync.
"""

import random
from pathlib import Path

import pytest

from moorage_daemon.store.port import StoreError
from tests.daemon.store.lives import COMMITS, found_in_sqlite, record_sqlite
from tests.daemon.store.media import Step, power_cut


IMAGES = 800


async def damage(tmp_path: Path, *, careless: bool) -> tuple[int, int]:
    """In how many images acknowledged entries are lost, and how many are corrupt."""
    steps = await record_sqlite(tmp_path / "sessions.db", careless=careless)
    assert sum(step.what == "ack" for step in steps) == COMMITS
    chance = random.Random(11)
    losses = corruptions = 0
    for number in range(IMAGES):
        folder = tmp_path / f"image{number}"
        acked = power_cut(steps, chance.randrange(len(steps) + 1), folder, chance)
        try:
            found, verdict = found_in_sqlite(folder)
        except StoreError:
            found, verdict = 0, "unreadable"
        losses += found < acked
        corruptions += verdict != "ok"
    return losses, corruptions


async def test_no_acknowledged_entry_is_lost_in_any_power_cut(tmp_path: Path) -> None:
    losses, corruptions = await damage(tmp_path, careless=False)

    assert (losses, corruptions) == (0, 0)


async def test_the_power_cuts_do_take_what_was_not_synced(tmp_path: Path) -> None:
    losses, _ = await damage(tmp_path, careless=True)

    assert losses > 0


@pytest.mark.parametrize("extra", [b"", b"torn"])
def test_a_power_cut_keeps_what_was_synced(tmp_path: Path, extra: bytes) -> None:
    steps = [
        Step("write", "a", 2, b"kept"),
        Step("sync", "a"),
        Step("ack", at=1),
        Step("truncate", "a", 6),
        Step("delete", "b"),
        Step("write", "c", 0, extra),
    ]

    acked = power_cut(steps, len(steps), tmp_path / "image", random.Random(1))

    assert acked == 1
    assert (tmp_path / "image" / "a").read_bytes() == b"\0\0kept"
