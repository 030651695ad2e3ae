"""The directory that a store of files is given."""

import os
from pathlib import Path

import pytest

from moorage_daemon.store.disk import made


@pytest.mark.parametrize("of_a_process_that_was_killed", [False, True])
def test_a_directory_is_durable_in_its_parent_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_a_process_that_was_killed: bool
) -> None:
    """Killed between making it and syncing its parent, which nobody would do later."""
    synced: list[int] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if of_a_process_that_was_killed:
        (tmp_path / "store").mkdir()

    made(tmp_path / "store").close()

    assert synced == [tmp_path.stat().st_ino]
