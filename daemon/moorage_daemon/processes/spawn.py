"""Starts a command under a supervisor, synchronously and in less than a millisecond.

The fork is `subprocess`'s vfork: the daemon's memory is never copied, and no thread is involved
whose end could matter. What is to run travels in an anonymous file, not on the supervisor's command
line, where `pkill -f` would find the supervisor too. So does the supervisor's own program: it is as
old as the daemon, whatever an upgrade does to the files on the disk, and need not be compiled.
"""

import marshal
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from moorage_daemon.processes import supervisor
from moorage_daemon.processes.orphans import new_mark
from moorage_daemon.processes.process import Process


GRACE = 0.5  # seconds between SIGTERM and SIGKILL

# Marshal is safe here: both ends are the same interpreter, and nobody else can write the file.
PROGRAM = marshal.dumps(
    compile(Path(supervisor.__file__).read_bytes(), supervisor.__file__, "exec", dont_inherit=True)
)
BOOT = """\
# supervises one tool of moorage
import marshal, sys
with open(int(sys.argv[1]), "rb") as file:
    program, spec = marshal.load(file)
scope = {"__name__": "supervisor"}
exec(marshal.loads(program), scope)
scope["main"](spec, float(sys.argv[2]))
"""


class SpawnError(Exception):
    """No process was started: the command is malformed, or the system refused."""


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path | int,
    env: Mapping[str, str],
    grace: float = GRACE,
) -> Process:
    """Start a command and return at once, with no checkpoint; enter `attended` next.

    `cwd` is a path, or a descriptor that the caller may close afterwards. `env` is all that the
    command gets; its PATH finds the command. Standard input is empty; standard error goes where
    standard output goes. A command that does not exist is noticed later, as `NotStarted`.
    Raises SpawnError.
    """
    if not argv:
        raise SpawnError("the command is empty")
    mark = new_mark()
    with ExitStack() as stack:
        try:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            undo = stack.enter_context(ExitStack())
            undo.callback(ours.close)
            output, theirs_out = os.pipe()
            stack.callback(os.close, theirs_out)
            undo.callback(os.close, output)
            orders = stack.enter_context(_anonymous_file())
            orders.write(marshal.dumps((PROGRAM, _spec(argv, cwd, env, mark))))
            orders.seek(0)
            inherited = [orders.fileno(), cwd] if isinstance(cwd, int) else [orders.fileno()]
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", BOOT, str(orders.fileno()), str(grace)],
                stdin=theirs.fileno(),
                stdout=theirs_out,
                stderr=theirs_out,
                cwd="/",
                env=_own_environment(),
                pass_fds=inherited,
                start_new_session=True,  # no terminal's Ctrl-C reaches it
            )
        except (OSError, ValueError) as error:
            raise SpawnError(str(error)) from error
        undo.pop_all()
    return Process(child, ours, output, command=argv[0], grace=grace, mark=mark)


def _spec(
    argv: Sequence[str], cwd: Path | int, env: Mapping[str, str], mark: int | None
) -> supervisor.Spec:
    if any(not name or "=" in name for name in env):
        raise SpawnError("the environment holds a name that is none")
    return (
        [_encode(argument) for argument in argv],
        {_encode(name): _encode(value) for name, value in env.items()},
        cwd if isinstance(cwd, int) else _encode(str(cwd.absolute())),
        mark or 0,
    )


def _encode(text: str) -> bytes:
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise SpawnError("the command holds text that no program can receive") from error
    if b"\0" in data:
        raise SpawnError("the command holds a NUL")
    return data


def _anonymous_file() -> IO[bytes]:
    if sys.platform == "linux":  # in memory: a full disk does not stop a tool
        return os.fdopen(os.memfd_create("command"), "w+b")
    return tempfile.TemporaryFile()


def _own_environment() -> dict[str, str]:
    """Return what the supervisor's interpreter itself may need to start; no secrets."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
