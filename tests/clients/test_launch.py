"""Starting a daemon: one for everybody, nobody's child, and with a reason when it fails."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from moorage_clients.bridge.launch import LaunchFailed, connect
from tests.clients.fake_daemon import open_fake_daemon
from tests.clients.stub_daemon import ANSWERS, FAILS, environment_with, starts


CONNECT = """
import sys
from moorage_clients.bridge.launch import connect
connect(sys.argv[1], sys.argv[2:])
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "state"
    yield found
    for start in starts(found):
        os.kill(int(str(start["pid"])), signal.SIGKILL)


async def test_twenty_starters_at_once_get_one_daemon(tmp_path: Path, state_dir: Path) -> None:
    env = environment_with(tmp_path, ANSWERS)
    command = [sys.executable, "-c", CONNECT, str(state_dir)]

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(partial(trio.run_process, command, env=env))

    assert len(starts(state_dir)) == 1


async def test_started_daemon_has_no_ties_to_its_starter(tmp_path: Path, state_dir: Path) -> None:
    env = environment_with(tmp_path, ANSWERS)
    command = [sys.executable, "-c", CONNECT, str(state_dir), "--no-websocket"]

    with trio.fail_after(60):
        await trio.run_process(command, env=env, cwd=tmp_path)

    (start,) = starts(state_dir)
    assert start["flags"] == ["--state-dir", str(state_dir), "--no-websocket"]
    assert start["cwd"] == "/"
    assert start["sid"] == start["pid"]
    assert (state_dir / "daemon.log").read_text() == '{"ready": true}\n'
    assert state_dir.stat().st_mode & 0o777 == 0o700
    assert (state_dir / "daemon.log").stat().st_mode & 0o777 == 0o600


async def test_module_in_the_current_directory_is_not_the_daemon(
    tmp_path: Path, state_dir: Path
) -> None:
    env = environment_with(tmp_path, ANSWERS)
    trap = tmp_path / "repository" / "moorage_daemon"
    trap.mkdir(parents=True)
    (trap / "__main__.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    command = [sys.executable, "-P", "-c", CONNECT, str(state_dir)]

    with trio.fail_after(60):
        await trio.run_process(command, env=env, cwd=trap.parent)

    assert not (tmp_path / "sprung").exists()


def test_daemon_that_cannot_start_is_reported_with_its_last_words(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment_with(tmp_path, FAILS)["PYTHONPATH"])
    state_dir.mkdir(mode=0o700)
    (state_dir / "daemon.log").write_text("of an earlier start\n")

    with pytest.raises(LaunchFailed) as caught:
        connect(str(state_dir))

    assert caught.value.log == ["mooraged: moorage.toml: unknown key 'stoer'"]


async def test_daemon_that_runs_is_found_and_none_is_started(state_dir: Path) -> None:
    async with open_fake_daemon(state_dir):
        connect(str(state_dir)).close()

    assert not (state_dir / "daemon.log").exists()


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_state_directory_that_is_not_private_is_refused(state_dir: Path, mode: int) -> None:
    state_dir.mkdir()
    state_dir.chmod(mode)

    with pytest.raises(LaunchFailed, match="others may write"):
        connect(str(state_dir))


def test_state_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LaunchFailed, match="Not a directory"):
        connect(str(tmp_path / "file" / "state"))
