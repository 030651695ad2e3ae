"""The file that keeps space back."""

import os
from pathlib import Path

import pytest

from moorage_daemon.store.reserve import SIZE, Reserve


def test_the_reserve_takes_its_space_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "reserve"

    assert Reserve(path).restore()

    found = path.stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 >= SIZE
    assert found.st_mode & 0o777 == 0o600


def test_a_reserve_of_an_earlier_start_is_held(tmp_path: Path) -> None:
    Reserve(tmp_path / "reserve").restore()
    inode = (tmp_path / "reserve").stat().st_ino

    assert Reserve(tmp_path / "reserve").restore()

    assert (tmp_path / "reserve").stat().st_ino == inode
    assert Reserve(tmp_path / "reserve").release()


@pytest.mark.parametrize("size", [0, 100, SIZE], ids=["empty", "short", "sparse"])
def test_a_reserve_that_takes_no_space_is_replaced(tmp_path: Path, size: int) -> None:
    path = tmp_path / "reserve"
    path.touch()
    os.truncate(path, size)

    assert Reserve(path).restore()

    assert path.stat().st_blocks * 512 >= SIZE


def test_the_reserve_never_follows_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep", encoding="utf-8")
    (tmp_path / "reserve").symlink_to(target)

    assert Reserve(tmp_path / "reserve").restore()

    assert target.read_text(encoding="utf-8") == "keep"
    assert not (tmp_path / "reserve").is_symlink()


def test_a_reserve_that_cannot_be_made_is_not_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reserve = Reserve(tmp_path / "missing" / "reserve")

    assert not reserve.restore()
    assert not reserve.release()
    assert "the reserve cannot be taken" in caplog.text


def test_a_reserve_that_cannot_be_freed_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "reserve").mkdir()

    assert not Reserve(tmp_path / "reserve").release()
    assert "the reserve cannot be freed" in caplog.text
