"""A session's working directory, as far as file tools may see it.

A path is never checked and then opened: between the two a link can change. The kernel resolves it
beneath the directory and fails on the way out (Linux, openat2 with RESOLVE_BENEATH). Elsewhere each
component is opened by itself and no symbolic link is followed, not even one that stays inside.

A shell tool is not bound by this: that takes a sandbox.

    WorkspaceError
    ├── WorkspaceGone       the directory itself is not there any more
    ├── OutsideWorkspace    the path leads out of it, or through a link that is not followed
    ├── FileMissing         nothing is there
    ├── NotAFile            a directory, a FIFO, a device, a socket
    └── FileUnreadable      the system refused

Messages name the path as the caller gave it, never the one it resolved to.
"""

import ctypes
import errno
import os
import secrets
import stat
import struct
import sys
from codecs import getincrementaldecoder
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio


SYS_OPENAT2 = 437  # the same on every architecture
RESOLVE_NO_MAGICLINKS = 0x02  # nothing like /proc/self/root
RESOLVE_BENEATH = 0x08
OPEN_HOW = struct.Struct("QQQ")  # flags, mode, resolve
TRIES = 64  # the kernel says EAGAIN when something above was renamed meanwhile
DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a FIFO shall not block the open
PLACE = os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)
DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
LIMIT = 1024 * 1024  # bytes
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class WorkspaceError(Exception):
    """A file of the workspace cannot be had. `path` is as the caller gave it."""

    problem = "cannot be opened"

    def __init__(self, path: str, problem: str | None = None) -> None:
        super().__init__(path, problem or self.problem)
        self.path = path
        self.problem = problem or self.problem

    def __str__(self) -> str:
        return f"{self.path!r} {self.problem}"


class WorkspaceGone(WorkspaceError):
    """The directory itself is not there any more; `path` is the directory."""

    problem = "is not there any more; it was the session's directory"


class OutsideWorkspace(WorkspaceError):
    """The path leads out of the workspace, or through a link that is not followed."""

    problem = "leads out of the session's directory"


class FileMissing(WorkspaceError):
    """Nothing is there."""

    problem = "does not exist"


class NotAFile(WorkspaceError):
    """A directory, a FIFO, a device or a socket."""

    problem = "is no regular file"


class FileUnreadable(WorkspaceError):
    """The system refused."""


class Text(msgspec.Struct, frozen=True):
    """The beginning of a file; invalid UTF-8 shows as U+FFFD.

    `size` is the file's own, in bytes.
    """

    text: str
    size: int
    truncated: bool


@dataclass(frozen=True)
class Workspace:
    """A directory; it holds no descriptor, so idle sessions cost none."""

    path: Path

    async def place(self, path: str) -> str | None:
        """The absolute path under which another program opens the file, which need not be there.

        None where a name alone does not say which file is meant. Raises WorkspaceError for what
        leads out, or is something else than a file.
        """
        return await trio.to_thread.run_sync(self._place, path, abandon_on_cancel=True)

    def _place(self, path: str) -> str | None:
        relative = self._relative(path)
        if ".." in relative.split("/"):
            return None
        with self.open_root() as root:
            try:
                fd = _open_below(root, relative, PLACE)
            except FileNotFoundError:
                with self._folder(root, path):
                    return str(self.path / relative)
            except OSError as error:
                raise _explain(error, path) from error
            try:
                _must_be_a_file(os.fstat(fd).st_mode, path)
            finally:
                os.close(fd)
        return str(self.path / relative)

    async def write_text(self, path: str, text: str) -> None:
        """Replace a file's text, or make the file; nobody ever sees half of it.

        It is done in a thread that a cancelled caller leaves behind, and which then does not
        replace the file any more. A last name that is a link is not followed. Raises
        WorkspaceError.
        """
        wanted = Wanted()
        try:
            await trio.to_thread.run_sync(self._write, path, text, wanted, abandon_on_cancel=True)
        except trio.Cancelled:
            wanted.still = False
            raise

    def _write(self, path: str, text: str, wanted: "Wanted") -> None:
        with self.open_root() as root, self._folder(root, path) as (folder, name):
            try:
                mode = _mode_of(folder, name, path)
                draft = f".moorage-{secrets.token_hex(8)}"
                fd = os.open(draft, DRAFT, 0o666, dir_fd=folder)
                try:
                    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
                        if mode is not None:
                            os.fchmod(fd, mode)
                        file.write(text.encode())
                        file.flush()
                        os.fsync(fd)
                    if wanted.still:
                        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
                finally:
                    with suppress(FileNotFoundError):  # it has become the file
                        os.unlink(draft, dir_fd=folder)
            except OSError as error:
                raise _explain(error, path, "written") from error

    @contextmanager
    def _folder(self, root: int, path: str) -> Generator[tuple[int, str], None, None]:
        """Open the directory of a file, which itself need not be there; gives the file's name."""
        where, _, name = self._relative(path).rpartition("/")
        if name in ("", ".", ".."):
            raise NotAFile(path, "is a directory, not a file")
        try:
            folder = _open_below(root, where or ".", DIRECTORY)
        except FileNotFoundError:
            raise FileMissing(path, "lies in a directory that does not exist") from None
        except OSError as error:
            raise _explain(error, path) from error
        try:
            yield folder, name
        finally:
            os.close(folder)

    async def read_text(self, path: str, limit: int = LIMIT) -> Text:
        """Read at most `limit` bytes, in a thread that a cancelled caller leaves behind.

        A file on a dead network mount blocks that thread, not the caller's cancellation.
        Raises WorkspaceError.
        """
        return await trio.to_thread.run_sync(self._read, path, limit, abandon_on_cancel=True)

    def _read(self, path: str, limit: int) -> Text:
        with self.open_beneath(path) as fd, open(fd, "rb", closefd=False) as file:
            try:
                data = file.read(limit + 1)
                size = max(os.fstat(fd).st_size, len(data))
            except OSError as error:
                raise _explain(error, path) from error
        truncated = len(data) > limit
        decoder = getincrementaldecoder("utf-8")("replace")
        return Text(decoder.decode(data[:limit], final=not truncated), size, truncated)

    @contextmanager
    def open_root(self) -> Generator[int, None, None]:
        """Open the directory itself, as the `cwd` of a command or to resolve below it.

        Raises WorkspaceGone, or FileUnreadable if the system refuses.
        """
        try:
            root = os.open(self.path, DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise WorkspaceGone(str(self.path)) from error
        except OSError as error:
            raise _explain(error, str(self.path)) from error
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def open_beneath(self, path: str) -> Generator[int, None, None]:
        """Open a regular file for reading. Blocks, if the file system does.

        `path` is relative, or absolute and inside. Raises WorkspaceError.
        """
        relative = self._relative(path)
        with self.open_root() as root, ExitStack() as stack:
            try:
                fd = _open_below(root, relative, FILE)
            except OSError as error:
                raise _explain(error, path) from error
            stack.callback(os.close, fd)
            _must_be_a_file(os.fstat(fd).st_mode, path)
            yield fd

    def _relative(self, path: str) -> str:
        """Make the path relative by its text alone; the kernel judges what remains."""
        if not _is_a_path(path):
            raise FileMissing(path)
        if not path.startswith("/"):
            return path
        for root in (self.path.absolute(), self.path.resolve()):
            if Path(path).is_relative_to(root):
                return str(Path(path).relative_to(root))
        raise OutsideWorkspace(path)


@dataclass
class Wanted:
    """Whether anybody still wants what a thread is about to do."""

    still: bool = True


def _must_be_a_file(mode: int, path: str) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode))
        raise NotAFile(path, kind and f"is {kind}, not a file")


def _mode_of(folder: int, name: str, path: str) -> int | None:
    """The permissions of the file that is to be replaced; None if there is none."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        raise OutsideWorkspace(path, "leads through a link that is not followed")
    _must_be_a_file(mode, path)
    if not os.access(name, os.W_OK, dir_fd=folder):
        raise FileUnreadable(path, "may not be written")
    return stat.S_IMODE(mode)


def kernel_confines() -> bool:
    """Whether the kernel itself keeps a path beneath a directory (openat2, Linux 5.6)."""
    if not sys.platform.startswith("linux"):
        return False
    root = os.open("/", DIRECTORY)
    try:
        os.close(_openat2(root, ".", FILE))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _is_a_path(path: str) -> bool:
    try:
        return path != "" and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _open_below(root: int, path: str, flags: int) -> int:
    """Open what lies beneath a directory. Raises OSError; EXDEV and ELOOP for the way out."""
    if not sys.platform.startswith("linux"):
        return open_without_links(root, path, flags)
    try:
        return _openat2(root, path, flags)
    except OSError as error:
        # ENOSYS: older than Linux 5.6; EPERM: a container that knows it not
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return open_without_links(root, path, flags)


def _openat2(root: int, path: str, flags: int) -> int:
    how = OPEN_HOW.pack(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(TRIES):
        fd: int = libc.syscall(SYS_OPENAT2, root, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(ctypes.get_errno(), "openat2")


def open_without_links(root: int, path: str, flags: int = FILE) -> int:
    """Open what lies beneath a directory component by component, following no symbolic link.

    `..` goes back to the directory that was come from, and not above `root`. Raises OSError.
    """
    *folders, name = [part for part in path.split("/") if part not in ("", ".")] or ["."]
    if name == "..":
        folders, name = [*folders, name], "."
    with ExitStack() as stack:
        way = [root]
        for folder in folders:
            if folder != "..":
                way.append(os.open(folder, DIRECTORY | os.O_NOFOLLOW, dir_fd=way[-1]))
                stack.callback(os.close, way[-1])
            elif len(way) > 1:
                way.pop()
            else:
                raise OSError(errno.EXDEV, "above the root")
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=way[-1])


def _explain(error: OSError, path: str, done: str = "read") -> WorkspaceError:
    match error.errno:
        case errno.EXDEV:
            return OutsideWorkspace(path)
        case errno.ELOOP:
            return OutsideWorkspace(path, "leads through a link that is not followed")
        case errno.ENOENT:
            return FileMissing(path)
        case errno.ENOTDIR:
            return FileMissing(path, "leads through something that is no directory")
        case errno.EISDIR:
            return NotAFile(path, "is a directory, not a file")
        case errno.ENXIO | errno.ENODEV:  # a socket, or a device without a driver
            return NotAFile(path)
        case errno.EACCES | errno.EPERM:
            return FileUnreadable(path, f"may not be {done}")
        case _:
            what = "opened" if done == "read" else done
            return FileUnreadable(path, f"cannot be {what}: {os.strerror(error.errno or 0)}")
