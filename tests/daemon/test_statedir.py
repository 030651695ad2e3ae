"""The state directory: private, held by one daemon, never blocked by a dead one."""

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from moorage_daemon import statedir
from moorage_daemon.statedir import AlreadyRunning, StateDirError, open_state_dir
from moorage_protocol.rendezvous import DaemonInfo, is_alive, read_daemon, read_token


NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

# Waits for a line, tries, says how it went, and stays until its input ends.
DAEMON = """
import sys
from pathlib import Path
from moorage_daemon.statedir import AlreadyRunning, open_state_dir
sys.stdin.readline()
try:
    with open_state_dir(Path(sys.argv[1])) as state:
        state.socket_path.touch()
        state.publish(4711, None, str(state.socket_path))
        print("open", flush=True)
        sys.stdin.read()
except AlreadyRunning as error:
    print("refused", error.pid, error, flush=True)
"""

ASKER = """
import sys
from moorage_protocol.rendezvous import is_alive
print("asking", flush=True)
while True:
    is_alive(sys.argv[1])
"""

Child = subprocess.Popen[str]


@contextmanager
def child(program: str, path: Path) -> Generator[Child]:
    arguments = [sys.executable, "-c", program, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said_by(process: Child) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: Child) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_everything_is_private_whatever_the_umask_is(path: Path, mask: int) -> None:
    deep = path / "one" / "two"

    with umask(mask), open_state_dir(deep) as state:
        state.publish(1, None, "/s")
        modes = {file.name: mode_of(file) for file in deep.iterdir()}

    assert modes == dict.fromkeys(["daemon.json", "key", "lock", "token"], 0o600)
    assert {mode_of(folder) for folder in (path, path / "one", deep)} == {0o700}


def test_own_directory_that_others_may_read_becomes_private(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)

    with open_state_dir(path):
        assert mode_of(path) == 0o700


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.mkdir(0o700)
    path.symlink_to(target)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def make_file(path: Path) -> None:
    path.touch()


def make_group_writable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def make_sticky(path: Path) -> None:
    path.mkdir()
    path.chmod(0o1777)


def make_foreign(path: Path) -> None:
    path.mkdir(0o700)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_link, "symbolic link"),
        (make_dangling_link, "symbolic link"),
        (make_file, "not a directory"),
        (make_group_writable, "mode 0770"),
        (make_sticky, "mode 1777"),
        pytest.param(make_foreign, "uid 65534", marks=needs_root),
    ],
)
def test_directory_that_others_can_reach_into_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(path)
    before = path.lstat()

    with pytest.raises(StateDirError, match=reason) as caught, open_state_dir(path):
        pass

    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert (before.st_mode, before.st_uid) == (path.lstat().st_mode, path.lstat().st_uid)
    assert not path.is_dir() or list(path.iterdir()) == []


def test_path_beneath_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StateDirError, match="file/state"):
        with open_state_dir(tmp_path / "file" / "state"):
            pass


def test_second_daemon_is_refused_and_told_the_first_ones_pid(path: Path) -> None:
    with child(DAEMON, path) as first, child(DAEMON, path) as second:
        go(first)
        assert said_by(first) == "open"
        go(second)
        answer = said_by(second)

        assert answer.startswith(f"refused {first.pid} {path}: a daemon is already running")
        assert f"(pid {first.pid})" in answer
        assert read_daemon(path) == DaemonInfo(4711, None, str(path / "daemon.sock"))


def test_refused_daemon_touches_nothing_of_the_first(path: Path) -> None:
    with open_state_dir(path) as state:
        state.socket_path.touch()
        state.publish(os.getpid(), None, "/s")
        before = {file.name: file.read_bytes() for file in path.iterdir()}
        with pytest.raises(AlreadyRunning) as caught, open_state_dir(path):
            pass

        assert caught.value.pid == os.getpid()
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_of_twenty_daemons_at_once_one_wins_and_the_others_name_it(path: Path) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(child(DAEMON, path)) for _ in range(20)]
        for racer in racers:
            go(racer)
        answers = [said_by(racer) for racer in racers]

        winner = racers[answers.index("open")]
        losers = [answer for answer in answers if answer != "open"]
        assert len(losers) == 19
        assert all(answer.startswith(f"refused {winner.pid} ") for answer in losers)


def test_nothing_that_a_killed_daemon_left_blocks_the_next(path: Path) -> None:
    with child(DAEMON, path) as first:
        go(first)
        assert said_by(first) == "open"
        first.send_signal(signal.SIGKILL)
        first.wait()
    left = {file.name for file in path.iterdir()}
    dead = is_alive(path)

    with open_state_dir(path) as state:
        names = {file.name for file in path.iterdir()}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(state.socket_path))

    assert left == {"daemon.json", "daemon.sock", "key", "lock", "token"}
    assert not dead
    assert names == {"key", "lock", "token"}


@pytest.mark.parametrize(
    "content",
    [f"{os.getppid()}\n", "1\n", "9" * 24, "x" * 500, ""],
    ids=["our parent", "init", "huge", "foreign", "empty"],
)
def test_lock_file_with_a_reused_or_senseless_pid_blocks_nothing(path: Path, content: str) -> None:
    path.mkdir(0o700)
    (path / "lock").write_text(content)

    with open_state_dir(path):
        assert is_alive(path)
        with pytest.raises(AlreadyRunning) as caught, open_state_dir(path):
            pass
        assert caught.value.pid == os.getpid()
    assert not is_alive(path)


def test_clients_that_ask_without_pause_never_keep_a_daemon_from_starting(path: Path) -> None:
    with open_state_dir(path):
        pass

    with child(ASKER, path) as one, child(ASKER, path) as two:
        assert (said_by(one), said_by(two)) == ("asking", "asking")
        for _ in range(300):
            with open_state_dir(path):
                pass


def test_pid_of_a_dead_daemon_is_not_named_while_the_new_one_has_yet_to_write_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statedir, "LOCK_PATIENCE", 0.02)
    path.mkdir(0o700)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        (path / "lock").write_text(f"{dead.pid}\n")

    with (path / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning) as caught, open_state_dir(path):
            pass

    assert caught.value.pid is None


def test_lock_that_is_shared_for_good_is_reported_as_such(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statedir, "LOCK_PATIENCE", 0)
    path.mkdir(0o700)

    with (path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(StateDirError, match="no daemon"), open_state_dir(path):
            pass


def test_lock_that_is_a_link_or_a_pipe_is_refused_by_name(path: Path) -> None:
    path.mkdir(0o700)
    (path / "lock").symlink_to(path.with_name("elsewhere"))
    with pytest.raises(StateDirError, match="state/lock"), open_state_dir(path):
        pass
    (path / "lock").unlink()
    os.mkfifo(path / "lock")

    with pytest.raises(StateDirError, match="state/lock: it is not a regular file"):
        with open_state_dir(path):
            pass


def test_secrets_are_made_once_and_kept(path: Path) -> None:
    with open_state_dir(path) as first:
        pass
    with open_state_dir(path) as second, open_state_dir(path.with_name("other")) as other:
        pass

    assert len(first.token) == 43
    assert len(first.key) == 32
    assert (first.token, first.key) == (second.token, second.key)
    assert other.token != first.token
    assert other.key != first.key
    assert read_token(path) == first.token


def test_secrets_stay_out_of_what_is_printed(path: Path) -> None:
    with open_state_dir(path) as state:
        shown = f"{state!r} {state}"

    assert str(path) in shown
    assert state.token not in shown
    assert repr(state.key) not in shown


def test_draft_of_a_daemon_that_died_while_writing_is_replaced(path: Path) -> None:
    path.mkdir(0o700)
    (path / "token.new").write_text("half")
    (path / "daemon.json.new").write_text("half")

    with open_state_dir(path) as state:
        state.publish(1, None, "/s")

        assert len(state.token) == 43
        assert {file.name for file in path.iterdir()} == {"daemon.json", "key", "lock", "token"}


@pytest.mark.parametrize("name", ["token", "key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_secret_that_others_may_reach_is_refused(path: Path, name: str, mode: int) -> None:
    with open_state_dir(path):
        pass
    (path / name).chmod(mode)

    with pytest.raises(StateDirError, match=f"state/{name}: others may read it"):
        with open_state_dir(path):
            pass


@pytest.mark.parametrize("name", ["token", "key"])
@pytest.mark.parametrize("content", [b"", b"short", b"a b" * 20, b"x" * 2000])
def test_damaged_secret_is_refused_and_not_replaced(path: Path, name: str, content: bytes) -> None:
    with open_state_dir(path):
        pass
    (path / name).write_bytes(content)

    with pytest.raises(StateDirError, match=f"state/{name}: it is damaged"):
        with open_state_dir(path):
            pass
    assert (path / name).read_bytes() == content


def test_secret_that_is_a_link_is_refused(path: Path) -> None:
    with open_state_dir(path):
        pass
    (path / "token").rename(path.with_name("token"))
    (path / "token").symlink_to(path.with_name("token"))

    with pytest.raises(StateDirError, match="state/token"), open_state_dir(path):
        pass


@needs_root
def test_secret_of_another_user_is_refused(path: Path) -> None:
    with open_state_dir(path):
        pass
    os.chown(path / "token", NOBODY, NOBODY)

    with pytest.raises(StateDirError, match="state/token"), open_state_dir(path):
        pass


def test_refused_start_releases_the_lock(path: Path) -> None:
    with open_state_dir(path):
        pass
    (path / "token").chmod(0o644)
    with pytest.raises(StateDirError), open_state_dir(path):
        pass

    assert not is_alive(path)


def test_published_daemon_is_found_until_the_directory_is_left(path: Path) -> None:
    with open_state_dir(path) as state:
        before = read_daemon(path)
        state.socket_path.touch()
        state.publish(7, "ws://127.0.0.1:1/acp", str(state.socket_path))
        during = read_daemon(path)

    assert before is None
    assert during == DaemonInfo(7, "ws://127.0.0.1:1/acp", str(path / "daemon.sock"))
    assert {file.name for file in path.iterdir()} == {"key", "lock", "token"}


def test_what_was_published_goes_when_the_daemon_fails(path: Path) -> None:
    def fail() -> None:
        with open_state_dir(path) as state:
            state.publish(7, None, "/s")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert read_daemon(path) is None
    assert not is_alive(path)


def test_files_that_took_the_place_of_ours_stay(path: Path) -> None:
    with open_state_dir(path) as state:
        state.socket_path.touch()
        state.publish(7, None, "/s")
        for name in ("daemon.json", "daemon.sock"):
            (path / "other").write_text("not ours")
            (path / "other").rename(path / name)

    assert (path / "daemon.json").read_text() == "not ours"
    assert (path / "daemon.sock").read_text() == "not ours"


def test_withdrawing_early_is_enough_and_keeps_the_lock(path: Path) -> None:
    with open_state_dir(path) as state:
        state.publish(7, None, "/s")
        state.withdraw()

        assert read_daemon(path) is None
        assert is_alive(path)


def test_directory_leaves_no_descriptor_behind(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    with open_state_dir(path):
        with pytest.raises(AlreadyRunning), open_state_dir(path):
            pass

    assert len(list(Path("/proc/self/fd").iterdir())) == before
