"""Other users of the machine: nothing of a daemon is theirs to read, to change or to talk to."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemons import PATIENCE, command, environment, running
from tests.e2e.streams import Lines, over_unix


NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="ONLY ROOT BECOMES SOMEBODY ELSE")

# Becomes another user, tries everything, and tells what succeeded.
STRANGER = """
import json, os, pathlib, socket, sys
user, state, names = int(sys.argv[1]), pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)

def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))

tries = {
    "list it": lambda: os.listdir(state),
    "make a file": lambda: (state / "mine").touch(),
}
for name in names:
    path = state / name
    tries |= {
        f"read {name}": lambda path=path: path.read_bytes(),
        f"write {name}": lambda path=path: path.open("ab").close(),
        f"look at {name}": lambda path=path: path.stat(),
        f"link {name}": lambda path=path: os.link(path, state.parent / f"linked-{path.name}"),
    }
tries["connect"] = lambda: connect(state / "daemon.sock")
if user:
    tries["move it"] = lambda: state.rename(state.with_name("moved"))
    tries["change its mode"] = lambda: state.chmod(0o777)
    tries["remove from it"] = lambda: (state / "token").unlink()
done = []
for what, attempt in tries.items():
    try:
        attempt()
        done.append(what)
    except OSError:
        pass
print(json.dumps([len(tries), done]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="moorage-", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def succeeded(user: int, state: Path) -> tuple[int, list[str]]:
    """How much a user tried, and what of it came off."""
    names = json.dumps(sorted(file.name for file in state.iterdir()))
    arguments = ["-I", "-S", "-c", STRANGER, str(user), str(state), names]
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, timeout=PATIENCE, check=True, cwd="/"
    )
    tried, came_off = json.loads(done.stdout)
    return tried, came_off


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_another_user_gets_at_nothing(folder: Path, mask: int) -> None:
    state = folder / "state"
    before = os.umask(mask)
    try:
        with running(state) as daemon, over_unix(daemon.unix, Lines()) as stream:
            stream.introduce()
            stream.call("session/new", cwd="/", mcpServers=[])

            tried, came_off = succeeded(NOBODY, state)
            assert came_off == []
            assert tried > 30

            # The same tries are no trouble to whose files they are.
            assert {"connect", "read token", "list it"} <= set(succeeded(0, state)[1])
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_daemon_refuses_a_directory_that_others_may_write_and_names_it(
    folder: Path, mode: int
) -> None:
    state = folder / "state"
    state.mkdir()
    state.chmod(mode)

    done = subprocess.run(
        command(state), capture_output=True, text=True, timeout=PATIENCE, env=environment()
    )

    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"mooraged: {state}: ")
    assert f"{mode:04o}" in line
    assert list(state.iterdir()) == []


def test_daemon_refuses_a_directory_of_another_user_and_names_it(folder: Path) -> None:
    state = folder / "state"
    state.mkdir(0o700)
    os.chown(state, NOBODY, NOBODY)

    done = subprocess.run(
        command(state), capture_output=True, text=True, timeout=PATIENCE, env=environment()
    )

    assert done.returncode == 1
    assert f"{state}: it belongs to uid {NOBODY}" in done.stderr
