"""Where a daemon and its clients meet: one directory, found without asking anybody.

The bridge that an editor starts has milliseconds, so this module loads the standard
library alone and of that only what is cheap: paths are strings, records are tuples
(pathlib and dataclasses would cost more than the bridge itself). Nothing here connects
or listens: the answers are addresses, good for a blocking socket and for trio alike.
"""

import errno
import fcntl
import json
import os
import pwd
import stat
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, cast


STATE_DIR_VARIABLE = "MOORAGE_STATE_DIR"

SOCKET_NAME = "daemon.sock"
DAEMON_NAME = "daemon.json"  # what the running daemon says about itself
TOKEN_NAME = "token"
LOCK_NAME = "lock"  # locked from a daemon's first step to its last; its pid inside
LOG_NAME = "daemon.log"  # stderr of a daemon that a client started

# Bytes of sockaddr_un.sun_path, the closing NUL included: unix(7), and 4.4BSD.
SUN_PATH = 104 if sys.platform == "darwin" else 108

MAX_FILE = 64 * 1024  # bytes; ours have some hundred, anything large is foreign


class DaemonInfo(NamedTuple):
    """What `daemon.json` says; it can outlive its daemon, so ask `is_alive` too."""

    pid: int
    websocket: str | None  # ws://HOST:PORT/acp, None when it is switched off
    unix: str


def default_state_dir(env: Mapping[str, str]) -> str:
    """Return the absolute state directory that `env` names or implies.

    The same as platformdirs' user_state_path("moorage") on Linux and macOS: the XDG base
    directory rules, where a relative path counts as unset. XDG_RUNTIME_DIR plays no
    part: editors start programs without it. Raises LookupError where nothing names
    a home directory.
    """
    if chosen := env.get(STATE_DIR_VARIABLE):
        return os.path.abspath(chosen)
    base = env.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        macos = sys.platform == "darwin"
        folders = "Library/Application Support" if macos else ".local/state"
        base = f"{_home(env)}/{folders}"
    return os.path.join(base, "moorage")


def _home(env: Mapping[str, str]) -> str:
    home = env.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = ""
    if not os.path.isabs(home):
        raise LookupError(f"no home directory: set HOME or {STATE_DIR_VARIABLE}")
    return home.rstrip("/")


def objection_to(found: os.stat_result) -> str | None:
    """Say why nobody may keep secrets in the directory `found`; None if one may.

    Takes the answer of lstat, or of fstat on what O_NOFOLLOW opened. Whoever else can
    write there could put a socket of their own where clients look for the daemon's.
    """
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}, not to uid {os.geteuid()}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        return f"others may write in it (mode {mode:04o}); chmod 700 would do"
    return None


def read_daemon(state_dir: str | os.PathLike[str]) -> DaemonInfo | None:
    """Read `daemon.json`; None where it is missing, torn, foreign or not ours."""
    try:
        found: object = json.loads(_read_own(os.path.join(state_dir, DAEMON_NAME)))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    record = cast("dict[str, object]", found)
    pid, websocket, unix = (record.get(name) for name in DaemonInfo._fields)
    if type(pid) is not int or pid <= 0:
        return None
    if not isinstance(unix, str) or not isinstance(websocket, str | None):
        return None
    return DaemonInfo(pid, websocket, unix)


def _read_own(path: str) -> bytes:
    """Read a small regular file of this user; a FIFO or a link never holds us up."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not ours or found.st_size > MAX_FILE:
            raise PermissionError(errno.EPERM, "not a file that moorage wrote", path)
        return file.read()


def read_token(state_dir: str | os.PathLike[str]) -> str:
    """Read the token that opens the WebSocket; raises OSError where there is none."""
    return _read_own(os.path.join(state_dir, TOKEN_NAME)).decode("ascii", "replace").strip()


def is_alive(state_dir: str | os.PathLike[str]) -> bool:
    """Whether a daemon holds this directory, from its first step to its last.

    Asks the lock, which ends with its process; a pid may long be somebody else's. The
    question takes a shared lock for an instant, so askers do not see each other, and
    a starting daemon knows them by that.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(os.path.join(state_dir, LOCK_NAME), flags)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@contextmanager
def open_address(socket_path: str | os.PathLike[str]) -> Generator[str]:
    """Give an address under which to bind or connect `socket_path` inside the block.

    A path too long for the kernel is reached through its directory's descriptor, which
    needs Linux; elsewhere OSError (ENAMETOOLONG) names the path.
    """
    path = os.fspath(socket_path)
    if len(os.fsencode(path)) < SUN_PATH:
        yield path
        return
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
