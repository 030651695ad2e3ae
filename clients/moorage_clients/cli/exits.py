"""How a command ends: one number for each answer a script may need to tell apart."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes; `--help` prints the same list."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    NO_SESSION = 4
    CANCELLED = 5
    KILLED = 6
    DETACHED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "it failed, or was refused",
    Exit.USAGE: "the command line is wrong",
    Exit.NO_DAEMON: "no daemon, none could be started, or the connection was lost",
    Exit.NO_SESSION: "no such session, or several begin like that",
    Exit.CANCELLED: "the turn was cancelled",
    Exit.KILLED: "the session was killed",
    Exit.DETACHED: "left with Ctrl-C; a turn that was running runs on",
}


class Failure(Exception):
    """A command cannot do what it was asked to; `hint` says what to do about it."""

    def __init__(self, code: Exit, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.hint = hint
