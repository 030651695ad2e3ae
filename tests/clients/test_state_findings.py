"""What is found wrong with a state directory by looking at it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moorage_clients.cli.state_findings import look_at_state_dir
from moorage_daemon.statedir import open_state_dir
from moorage_protocol.checkup import Finding, State


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A directory in which a daemon was."""
    path = tmp_path / "state"
    with open_state_dir(path):
        pass
    return path


def bad(state_dir: Path) -> dict[str, Finding]:
    """What is not good of it, by name."""
    findings = look_at_state_dir(str(state_dir))
    return {finding.name: finding for finding in findings if finding.state is not State.GOOD}


def test_directory_that_a_daemon_made_is_good(state_dir: Path) -> None:
    assert bad(state_dir) == {}


def test_directory_that_is_missing_is_good_and_stays_missing(tmp_path: Path) -> None:
    assert bad(tmp_path / "a" / "b") == {}
    assert not (tmp_path / "a").exists()


def test_address_that_a_killed_daemon_left_is_good(state_dir: Path) -> None:
    (state_dir / "daemon.json").touch(0o600)

    assert bad(state_dir) == {}
    assert "leftovers" in {finding.name for finding in look_at_state_dir(str(state_dir))}


def open_to_all(state_dir: Path) -> None:
    state_dir.chmod(0o777)


def link(state_dir: Path) -> None:
    moved = state_dir.with_name("moved")
    state_dir.rename(moved)
    state_dir.symlink_to(moved)


def file(state_dir: Path) -> None:
    state_dir.rename(state_dir.with_name("moved"))
    state_dir.touch()


def readable_token(state_dir: Path) -> None:
    (state_dir / "token").chmod(0o604)


def readable_key(state_dir: Path) -> None:
    (state_dir / "key").chmod(0o640)


def linked_token(state_dir: Path) -> None:
    (state_dir / "token").unlink()
    (state_dir / "token").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (open_to_all, "state directory", "others may write"),
        (link, "state directory", "symbolic link"),
        (file, "state directory", "not a directory"),
        (readable_token, "token", "mode 0604"),
        (readable_key, "key", "mode 0640"),
        (linked_token, "token", "not a regular file"),
    ],
)
def test_what_keeps_a_daemon_from_starting_is_a_problem(
    state_dir: Path, spoil: Callable[[Path], None], name: str, said: str
) -> None:
    spoil(state_dir)

    found = bad(state_dir)[name]

    assert found.state is State.BROKEN
    assert said in found.said
    assert found.advice


@pytest.mark.parametrize(
    ("name", "mode"), [(".", 0o755), ("sessions.db", 0o644), ("daemon.log", 0o660)]
)
def test_what_others_may_look_at_is_a_warning(state_dir: Path, name: str, mode: int) -> None:
    path = state_dir / name
    if name != ".":
        path.touch()
    path.chmod(mode)

    (found,) = bad(state_dir).values()

    assert found.state is State.WEAK
    assert f"{mode:04o}" in found.said
    assert str(path) in found.advice


def test_place_that_everybody_may_rearrange_is_a_warning(state_dir: Path) -> None:
    state_dir.parent.chmod(0o777)

    (found,) = bad(state_dir).values()

    assert found.state is State.WEAK
    assert str(state_dir.parent) in found.advice


def test_place_where_everybody_may_only_add_is_good(state_dir: Path) -> None:
    state_dir.parent.chmod(0o1777)

    assert bad(state_dir) == {}
