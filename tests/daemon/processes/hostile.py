"""A command that does not want to end: `hostile.py SHAPE MARKER [exit]`.

Every process of it has MARKER in its arguments, which survive fork, setsid and a cleared
environment. When all of them are there it writes "ready"; with `exit` its main process then ends
and leaves the others behind.
"""

import os
import signal
import sys
import time
from collections.abc import Callable


IDLERS = 30  # of the fork storm
CHAINS = 30  # of processes that each fork the next and end
PAUSE = 0.002  # seconds between two links of a chain: others use the machine too
LIFE = 60.0  # seconds; longer than any test, and nothing stays if a test is broken

Body = Callable[[int], None]  # gets a descriptor to write to when it is what it wants to be


def fork(body: Body, *, quiet: bool = True) -> None:
    """Run `body` in a child and wait until it is ready."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        if quiet:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
        body(writable)
        os._exit(0)
    os.close(writable)
    os.read(readable, 1)
    os.close(readable)


def hang() -> None:
    end = time.monotonic() + LIFE
    while time.monotonic() < end:
        time.sleep(1)  # noqa: TID251 - no trio here


def idle(ready: int) -> None:
    os.write(ready, b".")
    os.close(ready)
    hang()


def leave_session(ready: int) -> None:
    os.setsid()
    idle(ready)


def fork_twice(ready: int) -> None:
    os.setsid()
    if os.fork() == 0:
        idle(ready)


def ignore_polite_signals(ready: int) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    idle(ready)


def clear_environment(ready: int) -> None:
    os.setsid()
    os.set_inheritable(ready, True)
    again = [sys.executable, "-I", "-S", __file__, "bare", sys.argv[2], str(ready)]
    os.execve(sys.executable, again, {})


def fork_on_and_on(ready: int) -> None:
    os.setsid()
    os.write(ready, b".")
    os.close(ready)
    end = time.monotonic() + LIFE
    while time.monotonic() < end:
        time.sleep(PAUSE)  # noqa: TID251 - no trio here
        if os.fork():
            os._exit(0)


def storm() -> None:
    for _ in range(IDLERS):
        fork(idle)
    for _ in range(CHAINS):
        fork(fork_on_and_on)


def resist() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    fork(ignore_polite_signals)


SHAPES: dict[str, Callable[[], None]] = {
    "setsid": lambda: fork(leave_session),
    "double-fork": lambda: fork(fork_twice),
    "ignores-sigterm": resist,
    "fork-storm": storm,
    "holds-stdout": lambda: fork(leave_session, quiet=False),
    "bare-environment": lambda: fork(clear_environment),
}


def main() -> None:
    shape, *rest = sys.argv[1], *sys.argv[3:]
    if shape == "bare":
        idle(int(rest[0]))
    else:
        SHAPES[shape]()
        os.write(1, b"ready\n")
        if not rest:
            hang()


if __name__ == "__main__":
    main()
