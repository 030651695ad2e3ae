"""`moorage daemon`: start, stop and look at the daemon of a state directory.

Who runs is what the lock in the directory says, so a pid that is somebody else's by now is never
sent a signal. Nothing here speaks the protocol: these commands are for when that does not work.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from moorage_clients.bridge import launch
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import DaemonLogs, DaemonRun, DaemonStart, Invocation
from moorage_clients.cli.starting import start_daemon
from moorage_clients.plain_text import plain
from moorage_protocol import rendezvous


STOP_PATIENCE = 60.0  # seconds; a stop takes the grace for its turns, 5 seconds by default
MAX_TAIL = 2**20  # bytes of the log's end in which its last lines are looked for


def start(invocation: Invocation, command: DaemonStart) -> Exit:
    """Start a daemon in the background, unless one runs."""
    ran = rendezvous.is_alive(invocation.state_dir)
    start_daemon(invocation.state_dir, command.flags)
    if ran and command.flags and not invocation.json:
        _say("A daemon runs already; the flags change nothing until the next start.")
    return _report(invocation, started=not ran)


def run(invocation: Invocation, command: DaemonRun) -> Exit:
    """Become the daemon."""
    words = launch.command(invocation.state_dir, command.flags)
    os.execv(words[0], words)


def status(invocation: Invocation) -> Exit:
    """Say whether a daemon runs, and where."""
    if not rendezvous.is_alive(invocation.state_dir):
        if invocation.json:
            print(json.dumps({"running": False, "stateDir": invocation.state_dir}))
        else:
            _say(f"No daemon runs in {invocation.state_dir}.")
        return Exit.NO_DAEMON
    return _report(invocation, started=None)


def _report(invocation: Invocation, *, started: bool | None) -> Exit:
    state_dir = invocation.state_dir
    daemon = rendezvous.read_daemon(state_dir)
    log = str(Path(state_dir, rendezvous.LOG_NAME))
    if invocation.json:
        found = {"running": True, "stateDir": state_dir, "log": log}
        if started is not None:
            found["started"] = started
        print(json.dumps(found | ({} if daemon is None else daemon._asdict())))
        return Exit.OK
    verb = "Started the daemon" if started else "The daemon runs"
    if daemon is None:
        _say(f"{verb}, but does not listen yet or any more.")
        return Exit.OK
    _say(f"{verb}: pid {daemon.pid}")
    _say(f"  unix       {daemon.unix}")
    _say(f"  websocket  {daemon.websocket or '(off)'}")
    _say(f"  log        {log}")
    return Exit.OK


def stop(invocation: Invocation) -> Exit:
    """Stop the daemon and wait until it is gone."""
    pid = _holder(invocation.state_dir)
    if pid is not None:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it ended just now
        except PermissionError:
            raise Failure(Exit.FAILED, f"The daemon (pid {pid}) is not ours to stop.") from None
        _wait_for_end(invocation.state_dir, pid)
    if invocation.json:
        print(json.dumps({"stopped": pid is not None, "pid": pid}))
    else:
        _say("No daemon runs." if pid is None else f"Stopped the daemon, pid {pid}.")
    return Exit.OK


def _holder(state_dir: str) -> int | None:
    """The pid of the daemon that holds the directory's lock."""
    lock = Path(state_dir, rendezvous.LOCK_NAME)
    if not rendezvous.is_alive(state_dir):
        return None
    try:
        return int(lock.read_bytes())
    except (OSError, ValueError):
        raise Failure(
            Exit.FAILED, "A daemon runs, but it has not said its pid yet.", "Try again."
        ) from None


def _wait_for_end(state_dir: str, pid: int) -> None:
    deadline = time.monotonic() + STOP_PATIENCE
    while rendezvous.is_alive(state_dir):
        if time.monotonic() > deadline:
            raise Failure(
                Exit.FAILED, f"The daemon (pid {pid}) is still ending its turns.",
                "Once more insists: moorage daemon stop",
            )  # fmt: skip
        launch.pause()


def logs(invocation: Invocation, command: DaemonLogs) -> Exit:
    """Print the end of the daemon's log, and what is added to it."""
    path = Path(invocation.state_dir, rendezvous.LOG_NAME)
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise Failure(
            Exit.FAILED, f"There is no log at {path}.",
            "Only a daemon that was started in the background has one.",
        ) from None  # fmt: skip
    with file:
        file.seek(max(0, path.stat().st_size - MAX_TAIL))
        for line in file.readlines()[-command.lines :] if command.lines else []:
            _print_log(line, as_json=invocation.json)
        sys.stdout.flush()
        while command.follow:
            line = file.readline()
            if line:
                _print_log(line, as_json=invocation.json)
                sys.stdout.flush()
            else:
                launch.pause()
    return Exit.OK


def _print_log(line: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"line": line.rstrip("\n")}))
    else:
        sys.stdout.write(plain(line))


def _say(line: str) -> None:
    print(line)
