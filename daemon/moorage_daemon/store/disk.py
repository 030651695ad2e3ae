"""Files beneath one directory, for what keeps files of its own.

The directory is held open: what its path comes to mean later changes nothing. Links are never
followed, files are for their owner alone, and an error says whether there was no room or the
medium failed: after a sync that failed nobody knows what is on it, whatever the reason was.
"""

import errno
import fcntl
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from moorage_daemon.store.port import StoreBroken, StoreError, StoreFull


# What the system says when there is no room: on the disk, in the quota, for a file of this size.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

DRAFT = ".new"  # behind the name of a file that is being written


def disk_error(path: Path, act: str, error: OSError) -> StoreError:
    """What an error of the system means for whoever waits for the store."""
    why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
    kind = StoreFull if error.errno in NO_SPACE else StoreBroken
    return kind(f"{path} cannot be {act}: {why}")


def free_space(path: Path) -> int | None:
    """Bytes that may still be written where that directory is; None if nobody knows."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def made(path: Path) -> "Disk":
    """The directory at `path`, made if it is missing, and durable; its parent must exist."""
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        _sync_entry(path)
    except OSError as error:
        raise disk_error(path, "made", error) from error
    return Disk(path)


def _sync_entry(path: Path) -> None:
    """Make durable that there is that directory; whoever made it may have been killed over it.

    In one that is not for us to read, or on another disk, it is not we who made it.
    """
    if path.is_mount():
        return
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


class File(msgspec.Struct, frozen=True):
    """An open file of a disk; belongs to the thread that opened it."""

    name: str
    descriptor: int


class Disk:
    """The files in the directory at `path`. Its methods raise `StoreFull` and `StoreBroken`.

    One that `is_ours` is for its owner alone from here on.
    """

    def __init__(self, path: Path, *, is_ours: bool = True) -> None:
        self.path = path
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags)
            if is_ours:
                os.fchmod(self._descriptor, 0o700)
        except OSError as error:
            raise disk_error(path, "opened", error) from error

    def close(self) -> None:
        """Give up the directory."""
        os.close(self._descriptor)

    def folder(self, name: str) -> "Disk":
        """The directory of that name in this one, made durably if it is missing."""
        try:
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        except FileExistsError:
            pass
        except OSError as error:
            raise disk_error(self.path / name, "made", error) from error
        else:
            self.sync_names()
        return self._beneath(name)

    def _beneath(self, name: str) -> "Disk":
        return Disk(self.path / name)

    # ---- names

    def names(self) -> list[str]:
        """The names of all that is in the directory."""
        try:
            return os.listdir(self._descriptor)  # noqa: PTH208 - beneath the descriptor
        except OSError as error:
            raise disk_error(self.path, "read", error) from error

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        try:
            os.lstat(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(self.path / name, "looked at", error) from error
        return True

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what has it."""
        try:
            os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except OSError as error:
            raise disk_error(self.path / old, "renamed", error) from error

    def remove(self, name: str) -> bool:
        """Remove a file; False if there was none."""
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(self.path / name, "removed", error) from error
        return True

    def sync_names(self) -> None:
        """Make durable which files there are."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StoreBroken(f"{self.path} cannot be synced: {error.strerror}") from error

    # ---- files

    def open(self, name: str) -> File | None:
        """A file to read and write; None only if there truly is none."""
        try:
            return self._opened(name, os.O_RDWR)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error(self.path / name, "opened", error) from error

    def create(self, name: str) -> File:
        """A file to read and write, made if it is missing."""
        try:
            return self._opened(name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise disk_error(self.path / name, "opened", error) from error

    def _opened(self, name: str, flags: int) -> File:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO holds nobody up
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreBroken(f"{self.path / name} is not a regular file")
        return File(name, descriptor)

    def shut(self, file: File) -> None:
        """Give up an open file."""
        os.close(file.descriptor)

    def size(self, file: File) -> int:
        """How long it is, in bytes."""
        return os.fstat(file.descriptor).st_size

    def read(self, file: File, at: int, size: int) -> bytes:
        """What stands there: fewer bytes than asked for only at the end of the file."""
        found: list[bytes] = []
        try:
            while size > 0 and (piece := os.pread(file.descriptor, size, at)):
                found.append(piece)
                at, size = at + len(piece), size - len(piece)
        except OSError as error:
            raise disk_error(self.path / file.name, "read", error) from error
        return found[0] if len(found) == 1 else b"".join(found)

    def write(self, file: File, at: int, data: bytes) -> None:
        """Write all of it there; durable after `sync`."""
        rest = memoryview(data)
        try:
            while rest:
                count = os.pwrite(file.descriptor, rest, at)
                at, rest = at + count, rest[count:]
        except OSError as error:
            raise disk_error(self.path / file.name, "written", error) from error

    def truncate(self, file: File, size: int) -> None:
        """Cut it to that length."""
        try:
            os.ftruncate(file.descriptor, size)
        except OSError as error:
            raise disk_error(self.path / file.name, "cut", error) from error

    def sync(self, file: File) -> None:
        """Make durable what is in the file and how long it is."""
        try:
            _sync(file.descriptor)
        except OSError as error:
            raise StoreBroken(f"{self.path / file.name} cannot be synced: {error}") from error

    def lock(self, file: File) -> bool:
        """Keep every other process from locking it until it is shut; False if one has it."""
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise disk_error(self.path / file.name, "locked", error) from error
        return True

    # ---- whole files

    def fetch(self, name: str) -> bytes | None:
        """All of a small file; None only if there truly is none."""
        file = self.open(name)
        if file is None:
            return None
        try:
            return self.read(file, 0, self.size(file))
        finally:
            self.shut(file)

    def put(self, name: str, data: bytes) -> None:
        """Have a file of that content under that name, durably, or what was there before.

        A crash may leave `name` with `DRAFT` behind it.
        """
        draft = f"{name}{DRAFT}"
        file = self.create(draft)
        try:
            self.truncate(file, 0)
            self.write(file, 0, data)
            self.sync(file)
        except StoreFull:
            self.remove(draft)  # what there was room for
            raise
        finally:
            self.shut(file)
        self.rename(draft, name)
        self.sync_names()

    def prove(self, name: str) -> None:
        """Do all that durable writing takes with a file of that name, and remove it again."""
        content = secrets.token_bytes(64)
        self.put(name, content)
        found = self.fetch(name)
        self.remove(name)
        self.sync_names()
        if found != content:
            raise StoreBroken(f"{self.path / name}: what was read is not what was written")


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":  # there fsync leaves the data in the drive's memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)
