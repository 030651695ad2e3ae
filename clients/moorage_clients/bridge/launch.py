"""Find the daemon of a state directory, and start one where there is none.

Any number of programs may do this at once: one of them takes the start lock and starts a
daemon, the others wait for that one. The lock only saves work; that a directory has one daemon
is the daemon's own lock. A started daemon is nobody's child in spirit: own session, no terminal,
no directory of the caller's, and its log in the state directory.
"""

import fcntl
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from moorage_protocol import rendezvous


if TYPE_CHECKING:
    import subprocess


START_LOCK_NAME = "start.lock"

PATIENCE = 20.0  # seconds a daemon may take to answer; 0.3 is usual, slow disks are slower
PAUSE = 0.01  # seconds between two looks; a person does not notice them
LOG_LINES = 5  # of a daemon that ended at its start; the last ones say why
MAX_LOG = 8 * 2**20  # bytes; at a start a longer log is put aside, so two of them is the most
MAX_TAIL = 8192  # bytes of the log's end that are looked at for those lines


class LaunchFailed(Exception):
    """There is no daemon to talk to and none could be started; `log` is what the last one said."""

    def __init__(self, problem: str, log: Sequence[str] = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.log = list(log)

    def __str__(self) -> str:
        return "\n".join([self.problem, *(f"  {line}" for line in self.log)])


def dial(state_dir: str) -> socket.socket | None:
    """Connect to the daemon that runs in `state_dir`, without waiting; None where none answers."""
    daemon = rendezvous.read_daemon(state_dir)
    return None if daemon is None else connect_unix(daemon.unix)


def connect_unix(path: str) -> socket.socket | None:
    """Connect to a daemon's unix socket, without waiting; None where none answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        with rendezvous.open_address(path) as address:
            connection.connect(address)
    except OSError:  # a dead daemon's leftovers, or its queue is full for now
        connection.close()
        return None
    return connection


class StateDir:
    """Where the daemon of a state directory is found."""

    def __init__(self, path: str) -> None:
        self._path = path

    def dial(self) -> socket.socket | None:
        """Connect to it if it runs."""
        return dial(self._path)

    def start(self) -> "Launch":
        """Begin a search that starts it if need be."""
        return Launch(self._path)


class Launch:
    """One search for a daemon, from the first look until it answers or `PATIENCE` is over.

    `flags` are handed to a daemon that has to be started. `process` is that daemon, where this
    search started one; it is not ended with the search.
    """

    def __init__(self, state_dir: str, flags: Sequence[str] = ()) -> None:
        self.state_dir = state_dir
        self.flags = list(flags)
        self.process: subprocess.Popen[bytes] | None = None
        self._deadline = time.monotonic() + PATIENCE
        self._start_lock: int | None = None
        self._log_start = 0

    def attempt(self) -> socket.socket | None:
        """Look once, starting a daemon if it is on us to; None: look again after `PAUSE`.

        Raises `LaunchFailed` when there is nothing left to wait for.
        """
        connection = dial(self.state_dir)
        if connection is None:
            connection = self._start_or_wait()
        if connection is not None:
            self.close()
        return connection

    def _start_or_wait(self) -> socket.socket | None:
        if rendezvous.is_alive(self.state_dir):
            self._check_deadline("The daemon that is running here does not answer.")
            return None
        if self.process is not None and self.process.poll() is not None:
            self.close()
            raise LaunchFailed("The daemon did not start:", self._last_words())
        self._check_deadline("No daemon answered in time.")
        if self.process is None and self._take_start_lock():
            # Whoever had the lock before us may have brought a daemon up meanwhile.
            found = dial(self.state_dir)
            if found is None and not rendezvous.is_alive(self.state_dir):
                self._spawn()
            return found
        return None

    def _check_deadline(self, problem: str) -> None:
        if time.monotonic() > self._deadline:
            self.close()
            raise LaunchFailed(problem, self._last_words() if self.process else ())

    def _take_start_lock(self) -> bool:
        if self._start_lock is not None:
            return True
        try:
            prepare(self.state_dir)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(os.path.join(self.state_dir, START_LOCK_NAME), flags, 0o600)
        except OSError as error:
            raise LaunchFailed(f"{self.state_dir}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._start_lock = lock
        return True

    def _spawn(self) -> None:
        import subprocess  # costs milliseconds that only a start may take

        try:
            with open(_open_log(self.state_dir), "ab") as log:
                self._log_start = log.tell()
                self.process = subprocess.Popen(
                    command(self.state_dir, self.flags),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",  # keeps no directory busy, and no file there passes for a module
                    env=environment(),
                    start_new_session=True,
                )
        except OSError as error:
            self.close()
            raise LaunchFailed(f"The daemon could not be started: {error.strerror}") from error

    def _last_words(self) -> list[str]:
        try:
            with open(os.path.join(self.state_dir, rendezvous.LOG_NAME), "rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - MAX_TAIL))
                said = log.read(MAX_TAIL).decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in said if line.strip()][-LOG_LINES:]

    def reap(self) -> bool:
        """Take note of the end of the daemon that we started, or it stays listed as a zombie.

        Gives whether one still runs.
        """
        return self.process is not None and self.process.poll() is None

    def close(self) -> None:
        """End the search; the next one may start a daemon."""
        if self._start_lock is not None:
            os.close(self._start_lock)
            self._start_lock = None


def program() -> list[str]:
    """How the daemon is called, with this interpreter.

    -P: nothing in the directory we are called from, often a repository that nobody has read yet,
    is imported instead of what was installed.
    """
    return [sys.executable, "-P", "-m", "moorage_daemon"]


def command(state_dir: str, flags: Sequence[str]) -> list[str]:
    """The daemon's command line."""
    return [*program(), "--state-dir", state_dir, *flags]


def prepare(state_dir: str) -> None:
    """Make the state directory where it is missing; raises `LaunchFailed` if it is not private."""
    with suppress(FileExistsError):  # and no directory, which is objected to in better words
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
    objection = rendezvous.objection_to(os.lstat(state_dir))
    if objection is not None:
        raise LaunchFailed(f"{state_dir}: {objection}")


def _open_log(state_dir: str) -> int:
    path = os.path.join(state_dir, rendezvous.LOG_NAME)
    try:
        if os.stat(path).st_size > MAX_LOG:
            os.replace(path, path + ".1")
    except FileNotFoundError:
        pass  # the first start
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def environment() -> dict[str, str]:
    """What the daemon is given: ours, and no path that means another one in its directory."""
    environment = dict(os.environ)
    config = environment.get("MOORAGE_CONFIG")
    if config:
        environment["MOORAGE_CONFIG"] = os.path.abspath(config)
    return environment


def pause() -> None:
    """Wait a moment, where no event loop runs."""
    time.sleep(PAUSE)


def connect(state_dir: str, flags: Sequence[str] = ()) -> socket.socket:
    """Wait for a connection to the daemon, starting one if need be; raises `LaunchFailed`.

    Blocks: for programs without an event loop, or before theirs starts.
    """
    launch = Launch(state_dir, flags)
    try:
        while (connection := launch.attempt()) is None:
            pause()
    finally:
        launch.close()
    return connection
