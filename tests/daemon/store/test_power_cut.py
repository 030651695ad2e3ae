"""No crash takes anything that was acknowledged from the database, whatever order was written in.

The control arms show that this can fail: the same store, told to wait for no fsync.
"""

import random
from pathlib import Path

import pytest

from tests.daemon.store.crashes import SOUND, SQLITE, Plant, first_loss
from tests.daemon.store.lives import COMMITS, sqlite_life
from tests.daemon.store.media import Step, power_cut
from tests.daemon.store.platters import only_said


IMAGES = 120


async def loss(
    tmp_path: Path, *, careless: bool | None = False, plant: Plant | None = None
) -> str | None:
    """What is wrong with the first bad image of a life, after one crash or after two."""
    life = await sqlite_life(tmp_path / "sessions.db", careless=careless)
    assert sum(step.what == "ack" for step in life.steps) > 3 * COMMITS
    return first_loss(SQLITE, life, tmp_path, IMAGES, plant)


async def test_no_acknowledged_entry_is_lost_in_any_power_cut(tmp_path: Path) -> None:
    assert await loss(tmp_path) is None


async def test_no_power_cut_in_a_recovery_takes_what_was_told(tmp_path: Path) -> None:
    assert await loss(tmp_path, plant=SOUND) is None


@pytest.mark.parametrize("careless", [True, None], ids=["always", "when a session comes again"])
async def test_the_power_cuts_do_take_what_was_not_synced(
    tmp_path: Path, careless: bool | None
) -> None:
    assert await loss(tmp_path, careless=careless)


async def test_the_power_cuts_do_take_what_a_recovery_does_not_sync(tmp_path: Path) -> None:
    assert await loss(tmp_path, plant=Plant(only_said("sync")))


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
