"""Files of the workspace are replaced whole, and nothing outside of it ever is."""

import os
import stat
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
    Workspace,
    WorkspaceError,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace `w`, and a secret beside it."""
    tmp_path.joinpath("secret").write_text("SECRET")
    root = tmp_path / "w"
    root.joinpath("sub").mkdir(parents=True)
    root.joinpath("ok").write_text("old")
    links = {"inner": "ok", "inner-folder": "sub", "up": "../secret", "out": "..", "far": "/tmp"}
    for name, target in links.items():
        root.joinpath(name).symlink_to(target)
    return root


def tree(top: Path) -> dict[str, str]:
    """All files and what is in them, drafts too."""
    files = (path for path in top.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(top)): path.read_text() for path in files}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("new", "new"),
        ("ok", "ok"),
        ("./ok", "ok"),
        ("sub/new", "sub/new"),
        ("sub/../ok", "ok"),
        ("inner-folder/new", "sub/new"),
        ("WORKSPACE/ok", "ok"),
    ],
)
async def test_file_is_made_or_replaced(root: Path, path: str, where: str) -> None:
    text = "löng\n" * 10_000 + "\0\U0001f600"

    await Workspace(root).write_text(path.replace("WORKSPACE", str(root)), text)

    assert tree(root) == {"ok": "old"} | {where: text}


async def test_permissions_stay_and_new_files_get_the_usual_ones(root: Path) -> None:
    root.joinpath("ok").chmod(0o750)
    mask = os.umask(0o027)
    try:
        for name in ("ok", "new"):
            await Workspace(root).write_text(name, "text")
    finally:
        os.umask(mask)

    modes = [stat.S_IMODE(root.joinpath(name).stat().st_mode) for name in ("ok", "new")]
    assert modes == [0o750, 0o640]


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "../new",
        "sub/../../new",
        "up",
        "inner",
        "out/secret",
        "out/new",
        "out/w/new",
        "far/new",
        "/etc/new",
        "/new",
    ],
)
async def test_way_out_is_refused_and_nothing_is_written(
    root: Path, tmp_path: Path, path: str
) -> None:
    before = tree(tmp_path)

    with pytest.raises(OutsideWorkspace) as refused:
        await Workspace(root).write_text(path, "text")

    assert refused.value.path == path
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("sub", NotAFile),
        ("sub/", NotAFile),
        (".", NotAFile),
        ("fifo", NotAFile),
        ("", FileMissing),
        ("a\0b", FileMissing),
        ("nothing/new", FileMissing),
        ("ok/new", FileMissing),
        ("x" * 300, FileUnreadable),
    ],
)
async def test_what_cannot_be_a_file_is_refused(
    root: Path, path: str, error: type[WorkspaceError]
) -> None:
    os.mkfifo(root / "fifo")
    before = tree(root)

    with pytest.raises(error):
        await Workspace(root).write_text(path, "text")

    assert tree(root) == before


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everything")
async def test_file_without_permission_is_refused(root: Path) -> None:
    root.joinpath("ok").chmod(0o400)

    with pytest.raises(FileUnreadable, match="may not be written"):
        await Workspace(root).write_text("ok", "text")


async def test_reader_never_sees_half_of_it(root: Path) -> None:
    texts = ["a" * 300_000, "b" * 300_000]
    workspace, stop = Workspace(root), False
    await workspace.write_text("ok", texts[0])

    def look() -> set[str]:
        seen: set[str] = set()
        while not stop:
            seen.add(root.joinpath("ok").read_text())
        return seen

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for _ in range(20):
            for text in texts:
                await workspace.write_text("ok", text)
        stop = True

    assert looking.result() <= set(texts)


async def test_writing_that_is_cancelled_replaces_nothing_and_leaves_nothing(root: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Workspace(root).write_text, "ok", "x" * 100_000_000)
        await until(lambda: any(root.glob(".moorage-*")))
        nursery.cancel_scope.cancel()

    await until(lambda: not any(root.glob(".moorage-*")))
    assert root.joinpath("ok").read_text() == "old"


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not holds():  # noqa: ASYNC110 - a directory has no event for it
            await trio.sleep(0.001)


# ---- the place that another program is told


@pytest.mark.parametrize("path", ["ok", "new", "sub/new", "inner", "inner-folder/new"])
async def test_place_is_the_absolute_path(root: Path, path: str) -> None:
    assert await Workspace(root).place(path) == str(root / path)
    assert await Workspace(root).place(f"{root}/{path}") == str(root / path)


async def test_place_that_a_name_alone_does_not_tell_is_none(root: Path) -> None:
    assert await Workspace(root).place("sub/../ok") is None


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("up", OutsideWorkspace),
        ("out/secret", OutsideWorkspace),
        ("out/new", OutsideWorkspace),
        ("/etc/passwd", OutsideWorkspace),
        ("sub", NotAFile),
        ("nothing/new", FileMissing),
    ],
)
async def test_no_other_program_is_sent_outside(
    root: Path, path: str, error: type[WorkspaceError]
) -> None:
    with pytest.raises(error):
        await Workspace(root).place(path)


# ---- the race: a name that leads inside and outside in turn


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


async def test_changing_links_never_lead_a_writer_out(root: Path) -> None:
    workspace = Workspace(root)
    with flipping(root):
        for _ in range(300):
            with suppress(WorkspaceError):
                await workspace.write_text("flip/secret", "CHANGED")

    assert root.parent.joinpath("secret").read_text() == "SECRET"
    assert root.joinpath("real", "secret").read_text() == "CHANGED"


def test_looking_and_then_writing_would_have_been_led_out(root: Path) -> None:
    """The control arm: what the module does not do, with the link changed in between."""
    root.joinpath("real").mkdir()
    root.joinpath("flip").symlink_to("real")
    path = root / "flip" / "secret"

    assert path.resolve().is_relative_to(root)
    root.joinpath("next").symlink_to("..")
    root.joinpath("next").rename(root / "flip")
    path.write_text("CHANGED")

    assert root.parent.joinpath("secret").read_text() == "CHANGED"
