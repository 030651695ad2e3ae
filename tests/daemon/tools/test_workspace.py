"""Files of the workspace can be read, and nothing else can, whoever changes links meanwhile."""

import errno
import os
import socket
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from moorage_daemon.tools.workspace import (
    FileMissing,
    FileUnreadable,
    NotAFile,
    OutsideWorkspace,
    Text,
    Workspace,
    WorkspaceError,
    WorkspaceGone,
    open_without_links,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace `w`, and a secret beside it."""
    tmp_path.joinpath("secret").write_text("SECRET")
    root = tmp_path / "w"
    root.joinpath("sub").mkdir(parents=True)
    root.joinpath("ok").write_text("fine")
    root.joinpath("sub", "deep").write_text("deep")
    links = {
        "inner": "ok",
        "inner-folder": "sub",
        "absolute": "/etc/passwd",
        "up": "../secret",
        "sub/far-up": "../..",
        "loop": "loop",
        "magic": "/proc/self/root",
        "dangling": "nothing",
    }
    for name, target in links.items():
        root.joinpath(name).symlink_to(target)
    return root


async def read(root: Path, path: str) -> str:
    return (await Workspace(root).read_text(path)).text


@pytest.mark.parametrize(
    "path", ["ok", "./ok", "sub/../ok", "sub//../ok", "inner", "inner-folder/deep", "sub/deep"]
)
async def test_file_inside_is_read(root: Path, path: str) -> None:
    assert await read(root, path) in ("fine", "deep")


async def test_absolute_path_inside_is_read(root: Path) -> None:
    assert await read(root, f"{root}/ok") == "fine"
    assert await read(root, f"{root}/sub/../ok") == "fine"


async def test_absolute_path_is_known_by_the_name_of_a_link_and_its_target(
    root: Path, tmp_path: Path
) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to("w")

    assert await read(alias, f"{alias}/ok") == "fine"
    assert await read(alias, f"{root}/ok") == "fine"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret",
        "sub/../../secret",
        "absolute",
        "up",
        "sub/far-up/secret",
        "sub/far-up/w/ok",
        "loop",
        "magic/etc/passwd",
        "/etc/passwd",
        "/",
        "//etc/passwd",
    ],
)
async def test_way_out_is_refused(root: Path, path: str) -> None:
    with pytest.raises(OutsideWorkspace) as refused:
        await read(root, path)

    assert refused.value.path == path


async def test_absolute_path_through_the_root_and_out_is_refused(root: Path) -> None:
    with pytest.raises(OutsideWorkspace):
        await read(root, f"{root}/../secret")
    with pytest.raises(OutsideWorkspace):
        await read(root, f"{root}-neighbour/file")


@pytest.mark.parametrize(
    "path", ["nothing", "sub/nothing", "dangling", "ok/below", "", "a\0b", "\ud800", "~/x"]
)
async def test_missing_file_is_called_missing(root: Path, path: str) -> None:
    with pytest.raises(FileMissing):
        await read(root, path)


@pytest.mark.parametrize("path", [".", "sub", "sub/", "inner-folder", "sub/..", "ok/../sub"])
async def test_directory_is_refused(root: Path, path: str) -> None:
    with pytest.raises((NotAFile, FileMissing)) as refused:
        await read(root, path)

    assert isinstance(refused.value, FileMissing) == path.startswith("ok/")


async def test_fifo_is_refused_without_waiting_for_a_writer(root: Path) -> None:
    os.mkfifo(root / "fifo")

    with trio.fail_after(5), pytest.raises(NotAFile, match="is a FIFO, not a file"):
        await read(root, "fifo")


async def test_socket_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's own path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(NotAFile):
            await read(root, "socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
async def test_device_is_refused(root: Path) -> None:
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))

    with pytest.raises(NotAFile, match="is a device, not a file"):
        await read(root, "null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_file_without_permission_is_refused(root: Path) -> None:
    root.joinpath("ok").chmod(0)

    with pytest.raises(FileUnreadable, match="may not be read"):
        await read(root, "ok")


async def test_name_that_is_too_long_is_an_error_of_the_file(root: Path) -> None:
    with pytest.raises(FileUnreadable, match="File name too long"):
        await read(root, "x" * 300)


@pytest.mark.parametrize("path", ["up", "sub/far-up/secret", "nothing", "sub", "a\nb"])
async def test_message_names_the_path_that_was_given_and_no_other(root: Path, path: str) -> None:
    with pytest.raises(WorkspaceError) as refused:
        await read(root, path)

    assert str(refused.value).startswith(repr(path))
    assert str(root) not in str(refused.value)


async def test_vanished_workspace_is_named(root: Path) -> None:
    workspace = Workspace(root / "sub")
    root.joinpath("sub").rename(root / "elsewhere")

    with pytest.raises(WorkspaceGone, match=r"'/.*/w/sub' is not there any more"):
        await workspace.read_text("deep")
    with pytest.raises(WorkspaceGone), workspace.open_root():
        pass


async def test_long_file_is_cut_and_says_so(root: Path) -> None:
    root.joinpath("long").write_bytes(b"abc" * 1000)
    workspace = Workspace(root)

    assert await workspace.read_text("long", 4) == Text("abca", 3000, truncated=True)
    assert (await workspace.read_text("long", 3000)).truncated is False


async def test_sparse_giant_costs_no_more_than_the_limit(root: Path) -> None:
    with root.joinpath("giant").open("wb") as file:
        file.truncate(2**40)

    text = await Workspace(root).read_text("giant", 1000)
    assert text == Text("\0" * 1000, 2**40, truncated=True)


async def test_invalid_utf8_shows_and_a_cut_character_does_not(root: Path) -> None:
    root.joinpath("mixed").write_bytes(b"a\xffb\xc3\xa9")
    workspace = Workspace(root)

    assert (await workspace.read_text("mixed")).text == "a\ufffdbé"
    assert (await workspace.read_text("mixed", 4)).text == "a\ufffdb"


async def test_failed_and_finished_reads_leave_no_descriptor_open(root: Path) -> None:
    workspace = Workspace(root)
    os.mkfifo(root / "fifo")
    await workspace.read_text("ok")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("ok", "up", "nothing", "sub", "fifo", "/etc/passwd"):
        with suppress(WorkspaceError):
            await workspace.read_text(path)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# How it is done where the kernel cannot do it.


@contextmanager
def descriptor(path: Path) -> Generator[int, None, None]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("path", ["ok", "./ok", "sub/../ok", "sub//deep", "sub/./../sub/deep"])
def test_without_the_kernels_help_a_file_inside_is_opened(root: Path, path: str) -> None:
    with descriptor(root) as fd:
        with open(open_without_links(fd, path)) as file:  # noqa: PTH123 - a descriptor
            assert file.read() in ("fine", "deep")


@pytest.mark.parametrize(
    "path",
    ["..", "../secret", "sub/../../secret", "sub/far-up/secret", "absolute", "up", "inner", "loop"],
)
def test_without_the_kernels_help_no_link_is_followed(root: Path, path: str) -> None:
    with descriptor(root) as fd, pytest.raises(OSError) as refused:  # noqa: PT011 - see below
        open_without_links(fd, path)

    assert refused.value.errno in (errno.EXDEV, errno.ELOOP, errno.ENOTDIR)


# The race: a name that leads inside and outside in turn.


@contextmanager
def flipping(root: Path) -> Generator[None, None, None]:
    """While the block runs, `flip` is a folder inside, then a link to the folder above."""
    root.joinpath("real").mkdir()
    root.joinpath("real", "secret").write_text("INSIDE")
    stop: list[bool] = []

    def flip() -> None:
        while not stop:
            for target in ("real", ".."):
                root.joinpath("next").symlink_to(target)
                root.joinpath("next").rename(root / "flip")

    root.joinpath("flip").symlink_to("real")
    with ThreadPoolExecutor(1) as pool:
        flipper = pool.submit(flip)
        yield
        stop.append(True)
        flipper.result()


def look_then_open(root: Path) -> str | None:
    """What the module does not do."""
    path = root / "flip" / "secret"
    if path.resolve().is_relative_to(root):
        return path.read_text()
    return None


def open_beneath(root: Path) -> str | None:
    with Workspace(root).open_beneath("flip/secret") as fd:
        return os.read(fd, 10).decode()


def seen(root: Path, how: Callable[[Path], str | None], tries: int) -> set[str | None]:
    """Try until the secret is read; return all that was."""
    found: set[str | None] = set()
    with flipping(root):
        for _ in range(tries):
            with suppress(OSError, OutsideWorkspace):
                found.add(how(root))
            if "SECRET" in found:
                break
    return found


def test_changing_links_never_lead_out(root: Path) -> None:
    assert seen(root, open_beneath, 10_000) == {"INSIDE"}


def test_looking_and_then_opening_would_have_been_led_out(root: Path) -> None:
    """The control arm: the race is real."""
    assert "SECRET" in seen(root, look_then_open, 50_000)
