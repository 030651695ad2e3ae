"""Where daemon and clients meet: the directory, its files, its lock, its socket."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from moorage_protocol import rendezvous
from moorage_protocol.rendezvous import (
    DaemonInfo,
    default_state_dir,
    is_alive,
    objection_to,
    open_address,
    read_daemon,
    read_token,
)


ENVIRONMENTS = [
    {},
    {"HOME": "/home/ada"},
    {"HOME": "/home/ada/"},
    {"HOME": "/"},
    {"HOME": ""},
    {"HOME": "relative"},
    {"HOME": "/home/ada", "XDG_STATE_HOME": "/var/tmp/state"},
    {"HOME": "/home/ada", "XDG_STATE_HOME": "/var/tmp/state/"},
    {"HOME": "/home/ada", "XDG_STATE_HOME": ""},
    {"HOME": "/home/ada", "XDG_STATE_HOME": "relative"},
    {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/1000"},
]


@pytest.mark.parametrize("env", ENVIRONMENTS)
@pytest.mark.parametrize(("platform", "rule"), [("linux", Unix), ("darwin", MacOS)])
def test_default_state_dir_is_the_one_platformdirs_names(
    env: dict[str, str],
    platform: str,
    rule: type[Unix | MacOS],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    expected = rule("moorage").user_state_path
    monkeypatch.setattr(sys, "platform", platform)

    assert Path(default_state_dir(env)) == expected


def test_named_state_dir_wins_and_becomes_absolute() -> None:
    env = {"MOORAGE_STATE_DIR": "here", "XDG_STATE_HOME": "/x", "HOME": "/h"}

    assert default_state_dir(env) == str(Path.cwd() / "here")


def test_empty_state_dir_variable_counts_as_unset() -> None:
    env = {"MOORAGE_STATE_DIR": "", "XDG_STATE_HOME": "/x"}

    assert default_state_dir(env) == "/x/moorage"


def test_importing_the_rendezvous_loads_the_standard_library_alone() -> None:
    program = "import sys, moorage_protocol.rendezvous; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "moorage_protocol.rendezvous" in loaded
    assert not {"msgspec", "platformdirs", "trio", "websockets"} & set(loaded)
    assert not {"pathlib", "dataclasses", "inspect", "asyncio"} & set(loaded)


@pytest.mark.parametrize("websocket", ["ws://127.0.0.1:4711/acp", None])
def test_daemon_json_is_read_as_it_was_written(tmp_path: Path, websocket: str | None) -> None:
    info = DaemonInfo(4711, websocket, "/run/daemon.sock")
    text = json.dumps({**info._asdict(), "future": [1]})
    (tmp_path / "daemon.json").write_text(text, encoding="utf-8")

    assert read_daemon(tmp_path) == info


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"pid": 1, "websocket": null, "unix": "/run/da',
        b"\xff\xfe",
        b"[1]",
        b"null",
        b'{"pid": true, "websocket": null, "unix": "/s"}',
        b'{"pid": 0, "websocket": null, "unix": "/s"}',
        b'{"pid": "1", "websocket": null, "unix": "/s"}',
        b'{"pid": 1, "websocket": 5, "unix": "/s"}',
        b'{"pid": 1, "websocket": null, "unix": null}',
        b'{"pid": 1, "websocket": null}',
        b"[" * 60_000,
        b'{"pid": 1, "websocket": null, "unix": "/s"}' + b" " * 70_000 + b"x",
    ],
    ids=lambda content: f"{len(content)} bytes {content[:50]!r}",
)
def test_torn_or_foreign_daemon_json_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "daemon.json").write_bytes(content)

    assert read_daemon(tmp_path) is None


def test_missing_daemon_json_reads_as_none(tmp_path: Path) -> None:
    assert read_daemon(tmp_path) is None
    assert read_daemon(tmp_path / "nowhere") is None


def test_daemon_json_that_is_a_pipe_or_a_link_is_not_followed(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text('{"pid": 1, "websocket": null, "unix": "/s"}')
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "daemon.json").symlink_to(real)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "daemon.json")

    assert read_daemon(tmp_path / "link") is None
    assert read_daemon(tmp_path / "pipe") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_daemon_json_of_another_user_reads_as_none(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"pid": 1, "websocket": null, "unix": "/s"}')
    mine = read_daemon(tmp_path)
    os.chown(path, 65534, 65534)

    assert mine is not None
    assert read_daemon(tmp_path) is None


def test_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")

    assert read_token(tmp_path) == "abc"
    with pytest.raises(FileNotFoundError):
        read_token(tmp_path / "nowhere")


@contextmanager
def locked(path: Path, kind: int) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield


def test_daemon_is_alive_exactly_while_its_lock_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    assert not is_alive(tmp_path)
    with locked(path, fcntl.LOCK_EX):
        assert is_alive(tmp_path)
    assert path.exists()
    assert not is_alive(tmp_path)


def test_pid_of_a_living_stranger_in_the_lock_file_means_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "lock").write_text(f"{os.getppid()}\n")

    assert not is_alive(tmp_path)


def test_two_askers_do_not_take_each_other_for_a_daemon(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", fcntl.LOCK_SH):
        assert not is_alive(tmp_path)


def test_only_a_private_directory_of_this_user_meets_no_objection(
    tmp_path: Path,
) -> None:
    good, loose, file, link = (tmp_path / name for name in ("g", "l", "f", "s"))
    good.mkdir(0o700)
    loose.mkdir()
    loose.chmod(0o770)
    file.touch()
    link.symlink_to(good)

    assert objection_to(good.lstat()) is None
    assert "mode 0770" in str(objection_to(loose.lstat()))
    assert "not a directory" in str(objection_to(file.lstat()))
    assert "symbolic link" in str(objection_to(link.lstat()))


def long_directory(tmp_path: Path) -> Path:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    return folder


def test_short_socket_path_is_its_own_address(tmp_path: Path) -> None:
    with open_address("/tmp/daemon.sock") as address:
        assert address == "/tmp/daemon.sock"


@pytest.mark.parametrize("length", [107, 108])
def test_socket_path_around_the_kernel_limit_can_be_bound(tmp_path: Path, length: int) -> None:
    room = length - len(os.fsencode(tmp_path)) - len("//s")
    folder = tmp_path / ("x" * room)
    folder.mkdir()
    path = folder / "s"

    assert len(os.fsencode(path)) == length
    with socket.socket(socket.AF_UNIX) as listener, open_address(path) as address:
        listener.bind(address)
    assert path.is_socket()


def test_blocking_socket_reaches_a_socket_with_a_long_path(tmp_path: Path) -> None:
    path = long_directory(tmp_path) / rendezvous.SOCKET_NAME

    with socket.socket(socket.AF_UNIX) as listener:
        with open_address(path) as address:
            listener.bind(address)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client, open_address(path) as address:
            client.connect(address)
            server, _ = listener.accept()
            server.sendall(b"hello")
            server.close()

            assert client.recv(5) == b"hello"


async def test_trio_reaches_a_socket_with_a_long_path(tmp_path: Path) -> None:
    path = long_directory(tmp_path) / rendezvous.SOCKET_NAME

    with socket.socket(socket.AF_UNIX) as listener, trio.fail_after(5):
        with open_address(path) as address:
            listener.bind(address)
        listener.listen()
        with open_address(path) as address:
            stream = await trio.open_unix_socket(address)
        server, _ = listener.accept()
        server.sendall(b"hello")
        server.close()

        assert await stream.receive_some(5) == b"hello"
        await stream.aclose()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_address_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    path = long_directory(tmp_path) / "s"
    before = descriptors()

    with open_address(path):
        during = descriptors()

    assert during == before + 1
    assert descriptors() == before
