"""The state directory: one daemon's own, private, and never in the way of the next.

The kernel's lock on one file says who is running, and it ends with the process: nothing
that a dead daemon left behind, no pid that somebody else has by now, is ever believed.
Every file is reached beneath the directory's descriptor, after a look at what that is.
"""

import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from moorage_protocol.rendezvous import (
    DAEMON_NAME,
    LOCK_NAME,
    LOG_NAME,
    SOCKET_NAME,
    TOKEN_NAME,
    DaemonInfo,
    objection_to,
)


KEY_NAME = "key"  # proves the identities that this daemon issued to terminals

TOKEN_BYTES = 32  # 256 random bits, beyond guessing
KEY_BYTES = 32  # the length of a SHA-256 digest, the best size for its HMAC
MAX_SECRET = 1024  # bytes; more is none of ours
PID_WIDTH = 20  # bytes; padded, so that one write replaces whatever stood there

LOCK_PATIENCE = 1.0  # seconds; clients hold the lock for microseconds, to ask
LOCK_PAUSE = 0.001  # seconds between two tries

_TOKEN = re.compile(rb"[A-Za-z0-9_-]{43,512}\n?")  # 43 characters hold 256 bits
_KEY = re.compile(rb".{%d}" % KEY_BYTES, re.DOTALL)


class StateDirError(Exception):
    """The directory cannot be used; one line says what is wrong with which path."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class AlreadyRunning(StateDirError):
    """Another daemon holds the directory."""

    def __init__(self, path: Path, pid: int | None) -> None:
        name = "pid unknown" if pid is None else f"pid {pid}"
        super().__init__(path, f"a daemon is already running here ({name})")
        self.pid = pid


@dataclass(frozen=True)
class _Mark:
    """Tells a file from a later one of its name, also where inode numbers are reused."""

    device: int
    inode: int
    modified: int


@dataclass(frozen=True)
class _Folder:
    """A directory that was looked at, and its descriptor: what a path means can change."""

    path: Path
    descriptor: int

    def open_file(self, name: str, flags: int) -> int:
        """Open a regular file of this user; a FIFO or a link never holds us up."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, 0o600, dir_fd=self.descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            return descriptor
        os.close(descriptor)
        raise StateDirError(self.path / name, "it is not a regular file of this user")

    def write(self, name: str, content: bytes) -> None:
        """Put a whole file under `name`, durably, or leave what is there."""
        draft = f"{name}.new"
        self.remove(draft)  # of a daemon that died right here
        with os.fdopen(self.open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        os.fsync(self.descriptor)

    def mark(self, name: str) -> _Mark | None:
        try:
            found = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return _Mark(found.st_dev, found.st_ino, found.st_mtime_ns)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def secret(self, name: str, new: bytes, pattern: re.Pattern[bytes]) -> bytes:
        """Read a secret that nobody else can have read; where there is none, keep `new`."""
        try:
            descriptor = self.open_file(name, os.O_RDONLY)
        except FileNotFoundError:
            self.write(name, new)
            return new
        with os.fdopen(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            content = file.read(MAX_SECRET)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            problem = f"others may read it (mode {mode:04o}); remove it and start again"
            raise StateDirError(self.path / name, problem)
        if not pattern.fullmatch(content):
            raise StateDirError(self.path / name, "it is damaged; remove it and start again")
        return content


@dataclass(frozen=True)
class StateDir:
    """A private directory that this process holds the lock of, and its secrets."""

    path: Path
    token: str = field(repr=False)
    key: bytes = field(repr=False)
    _folder: _Folder = field(repr=False)
    _published: dict[str, _Mark | None] = field(repr=False)

    @property
    def socket_path(self) -> Path:
        return self.path / SOCKET_NAME

    @property
    def log_path(self) -> Path:
        return self.path / LOG_NAME

    def publish(self, pid: int, websocket: str | None, unix: str) -> None:
        """Tell clients where the daemon listens, once it does; raises StateDirError."""
        info = DaemonInfo(pid, websocket, unix)
        try:
            self._folder.write(DAEMON_NAME, json.dumps(info._asdict()).encode() + b"\n")
        except OSError as error:
            raise _explained(self.path, error) from error
        for name in (DAEMON_NAME, SOCKET_NAME):
            self._published[name] = self._folder.mark(name)

    def withdraw(self) -> None:
        """Remove what was published, unless something else stands in its place by now.

        Leaving `open_state_dir` does it at the latest; a second call finds nothing.
        """
        for name, mark in self._published.items():
            if mark is not None and self._folder.mark(name) == mark:
                self._folder.remove(name)


@contextmanager
def open_state_dir(path: Path) -> Generator[StateDir]:
    """Hold the directory `path` for this process, making it where it is missing.

    Raises AlreadyRunning with the holder's pid, or StateDirError where the directory or
    a secret in it is not private to this user, or the disk refuses. Blocks for moments:
    call it before the event loop serves anybody.
    """
    with ExitStack() as stack:
        try:
            state = _take(path.absolute(), stack)
        except OSError as error:
            raise _explained(path, error) from error
        stack.callback(state.withdraw)
        yield state


def _take(path: Path, stack: ExitStack) -> StateDir:
    folder = _open_folder(path, stack)
    lock = folder.open_file(LOCK_NAME, os.O_RDWR | os.O_CREAT)
    stack.callback(os.close, lock)  # and with it the lock ends
    _hold(folder, lock)
    stack.callback(os.ftruncate, lock, 0)
    for name in (DAEMON_NAME, SOCKET_NAME):  # of a daemon that did not live to do it
        folder.remove(name)
    new_token = secrets.token_urlsafe(TOKEN_BYTES).encode() + b"\n"
    token = folder.secret(TOKEN_NAME, new_token, _TOKEN).decode().strip()
    key = folder.secret(KEY_NAME, secrets.token_bytes(KEY_BYTES), _KEY)
    return StateDir(path, token, key, folder, {})


def _open_folder(path: Path, stack: ExitStack) -> _Folder:
    """Open a directory that has mode 0700 afterwards, whatever the umask is."""
    for missing in reversed([path, *path.parents]):
        if not os.path.lexists(missing):
            with suppress(FileExistsError):  # made by another daemon that starts with us
                missing.mkdir(0o700)
    if objection := objection_to(path.lstat()):
        raise StateDirError(path, objection)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    stack.callback(os.close, descriptor)
    if objection := objection_to(os.fstat(descriptor)):  # it can be another one by now
        raise StateDirError(path, objection)
    os.fchmod(descriptor, 0o700)
    return _Folder(path, descriptor)


def _hold(folder: _Folder, lock: int) -> None:
    """Lock for good and write down who did, or raise AlreadyRunning.

    A client that asks whether a daemon lives shares the lock for an instant. Whoever
    can share it as well has met such a client: a daemon shares with nobody.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while not _flock(lock, fcntl.LOCK_EX):
        if not _flock(lock, fcntl.LOCK_SH):
            raise AlreadyRunning(folder.path, _holder(lock))
        fcntl.flock(lock, fcntl.LOCK_UN)
        if time.monotonic() > deadline:
            raise StateDirError(folder.path / LOCK_NAME, "held by something that is no daemon")
        _pause()
    os.pwrite(lock, f"{os.getpid()}\n".rjust(PID_WIDTH).encode(), 0)


def _flock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: int) -> int | None:
    """Read the pid in a lock that is held; its holder may be just about to write it."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while time.monotonic() < deadline:
        text = os.pread(lock, PID_WIDTH, 0).strip()
        if text.isdigit() and _lives(int(text)):
            return int(text)
        _pause()
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # and is somebody else's
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _pause() -> None:
    time.sleep(LOCK_PAUSE)  # noqa: TID251 - no event loop runs yet


def _explained(path: Path, error: OSError) -> StateDirError:
    named: object = error.filename
    where = path / named if isinstance(named, str) else path
    return StateDirError(where, error.strerror or type(error).__name__)
