"""Runs one command and outlives everything that the command starts.

`main` runs in a process of its own, one for each command, started by `spawn`:

- Standard input is the control socket. A byte asks for a polite end: SIGTERM to all, the sweep
  after the grace. End of file means sweep now: the owner wants a kill, or is dead.
- Standard output and error are what the command gets as both of its own.

Answers are JSON lines on the control socket. First `{"started": PID}` or `{"failed": WHAT, "errno":
N}`, where WHAT is cwd, exec or, if the end was asked for before the start, stopped. In the end
`{"code": N, "left": 0}` or `{"signal": N, "left": 0}`; `left` counts processes that could not be
killed, such as those of another user.

It is a child sub-reaper: whatever loses its parent below it becomes its own child, so "no child
left" means "no descendant left", whoever called setsid, forked twice or cleared the environment.
Where the system has no sub-reapers (macOS) only the command's process group is ended, and a child
that called setsid escapes.

It imports little, because every tool waits for it, and nothing of this project. Not taken:
PR_SET_PDEATHSIG, which fires when the *thread* that forked ends.
"""
# pathlib takes longer to import than all the rest:
# ruff: noqa: PTH109, PTH110, PTH113, PTH118, PTH123, PTH208

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import time


TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal  # the C half; the Python half imports enum, 4 ms of each start

Spec = tuple[list[bytes], dict[bytes, bytes], bytes | int, int]
"""argv, environment, working directory (a path or a descriptor), mark (0 for none)."""

CONTROL = 0
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
NAME = b"tool-supervisor"  # 15 bytes, the kernel's limit; `killall python` shall not hit it
RLIMIT_LOCKS = 10  # Linux has not looked at its value since 2.4.25
PATIENCE = 2.0  # seconds without one death; what SIGKILL has not ended by then hangs in the kernel
LOOK = 0.002  # seconds between two looks at a tree that is being killed


class Tree:
    """The processes below this one.

    `status` is the main child's wait status, None until it was reaped.
    """

    def __init__(self, main: int, announcements: int, *, adopts: bool) -> None:
        self.main = main
        self.status: int | None = None
        self.deaths = 0
        self._adopts = adopts
        self._announcements = announcements

    def wait_for_death(self, patience: float | None, *others: int) -> bool:
        """Wait until a child ends or another descriptor can be read; return whether one can."""
        ready, _, _ = select.select((self._announcements, *others), (), (), patience)
        if self._announcements in ready:
            os.read(self._announcements, 4096)
        return bool(set(others) & set(ready))

    def reap(self) -> bool:
        """Collect the dead; return whether a living child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.deaths += 1
            if pid == self.main and self.status is None:  # a fork storm reuses numbers in seconds
                self.status = status

    def signal(self, *numbers: int) -> None:
        """Stop every process, then send it each of the signals.

        A stopped process neither forks nor reaps: nothing outruns the walk, and no number in the
        list can have passed to a stranger.
        """
        reached = stop_descendants() if self._adopts else [-self.main]  # the process group
        for pid in reached:
            for number in numbers:
                reach(pid, number)

    def sweep(self) -> int:
        """Kill until nothing is left; return how many processes resisted."""
        last_death = time.monotonic()
        while True:
            deaths = self.deaths
            if self._adopts:
                kill_groups()
            self.signal(signal.SIGKILL)
            if not self.reap():
                return 0
            self.wait_for_death(LOOK)
            if self.deaths > deaths:
                last_death = time.monotonic()
            elif time.monotonic() > last_death + PATIENCE:
                return len(stop_descendants()) if self._adopts else 1


def reach(pid: int, number: int) -> bool:
    """Send a signal; return False if the process is gone or another user's."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def stop_descendants() -> list[int]:
    """Stop each process below this one before its own children are read; return all.

    A whole generation is stopped before anything else is done: whoever forks and ends, over and
    over, has its newest process among the first, and a thousandth of a second to live.
    """
    stopped: list[int] = []
    generation = children(os.getpid())
    while generation:
        for pid in generation:
            reach(pid, signal.SIGSTOP)
        stopped += generation
        generation = [child for pid in generation for child in children(pid)]
    return stopped


def kill_groups() -> None:
    """Kill the process groups of all own children, the dead that wait to be reaped included.

    A group is killed in one stroke, however fast its members fork and end. All of them belong to
    the command, which began with a session of its own, and an unreaped child holds its group's
    number.
    """
    groups = {os.getpgid(pid) for pid in children(os.getpid())}
    for group in groups - {0, 1, os.getpgrp()}:  # to kill(2), 0 and -1 are more than a group
        reach(-group, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Read the children of all threads of a process; none if it is gone or hidden."""
    if not HAS_CHILDREN_FILES:
        return [child for child in processes() if parent(child) == pid]
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return found
    return found


HAS_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def count_on_the_pipe(number: int, frame: object) -> None:
    """Do nothing: only a signal that has a handler is announced."""


def hear_of_deaths() -> int:
    """Let each end of a child be announced on a pipe; return the end to read.

    Orphans of a command that runs for days must not stay as zombies until it ends.
    """
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, count_on_the_pipe)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
    return readable


def adopt_orphans() -> bool:
    """Become a sub-reaper; return False where the system knows none."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except AttributeError:
        return False
    prctl(PR_SET_NAME, ctypes.c_char_p(NAME), 0, 0, 0)
    return bool(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def find_program(name: bytes, path: bytes) -> bytes:
    """Find a command as a shell does; relative to the working directory of this process."""
    if b"/" in name:
        return name
    number = errno.ENOENT
    for folder in path.split(b":"):
        program = os.path.join(folder or b".", name)
        if os.path.isfile(program):
            if os.access(program, os.X_OK):
                return program
            number = errno.EACCES
    raise OSError(number, "")


def start(argv: list[bytes], env: dict[bytes, bytes], mark: int) -> int:
    """Start the command in a session of its own and return its process id.

    The mark, as a resource limit that nothing looks at, is inherited through every fork and exec:
    should this process be killed, its owner still finds what it leaves.
    """
    if mark:
        resource.setrlimit(RLIMIT_LOCKS, (mark, mark))
    every_signal = signal.valid_signals()
    return os.posix_spawn(
        find_program(argv[0], env.get(b"PATH", os.defpath.encode())),
        argv,
        env,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)],
        setsid=True,
        setsigmask=(),
        setsigdef=every_signal - {signal.SIGKILL, signal.SIGSTOP},
    )


def enter(cwd: bytes | int) -> None:
    os.chdir(cwd)
    if isinstance(cwd, int):
        os.close(cwd)
    os.getcwd()  # fails in a directory that was removed while somebody held it open


def watch(tree: Tree, grace: float) -> None:
    """Return when the sweep is due."""
    while tree.reap() and tree.status is None:
        if tree.wait_for_death(None, CONTROL):
            return end_politely(tree, grace) if asked() else None
    return None


def end_politely(tree: Tree, grace: float) -> None:
    """Ask all to end; return when none is left, the grace is over, or the owner insists.

    The grace holds for what a command leaves behind too: `sh -c` often dies before its child has
    cleaned up.
    """
    tree.signal(signal.SIGTERM, signal.SIGCONT)
    deadline = time.monotonic() + grace
    while tree.reap() and (left := deadline - time.monotonic()) > 0:
        if tree.wait_for_death(left, CONTROL) and not asked():
            return


def asked() -> bytes:
    """Read what the owner asks for; nothing when it wants a kill or is dead."""
    try:
        return os.read(CONTROL, 64)
    except ConnectionResetError:  # it died before it read our report
        return b""


def report(line: str) -> None:
    try:  # noqa: SIM105 - contextlib is slow to import
        os.write(CONTROL, line.encode() + b"\n")
    except OSError:
        pass  # the owner is dead: nobody is left to be told, and the sweep is due anyway


def main(spec: Spec, grace: float) -> NoReturn:
    """Supervise one command to its end, and exit."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    argv, env, cwd, mark = spec
    adopts = adopt_orphans()
    stage = "stopped"
    try:
        if select.select((CONTROL,), (), (), 0)[0]:  # too late to start anything
            raise InterruptedError(errno.EINTR, "")
        stage = "cwd"
        enter(cwd)
        stage = "exec"
        announcements = hear_of_deaths()
        pid = start(argv, env, mark)
    except OSError as error:
        report(f'{{"failed": "{stage}", "errno": {error.errno}}}')
    else:
        report(f'{{"started": {pid}}}')
        see_through(Tree(pid, announcements, adopts=adopts), grace)
    os._exit(0)


def see_through(tree: Tree, grace: float) -> None:
    os.chdir("/")  # the command's directory can be unmounted
    watch(tree, grace)
    left = tree.sweep()
    if tree.status is None:
        return report(f'{{"left": {left}}}')
    code = os.waitstatus_to_exitcode(tree.status)
    report(f'{{"{"signal" if code < 0 else "code"}": {abs(code)}, "left": {left}}}')
    return None
