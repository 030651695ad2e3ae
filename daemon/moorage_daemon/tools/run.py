"""Run: a shell command in the workspace, under a supervisor that leaves no process behind.

Rules know it as `Bash`, like every tool whose text a shell reads: `Run` are the rules for programs
that are started without one.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.credentials import UnclearPlace, filled_for_shell
from moorage_daemon.grants.rules import SHELL_TOOL
from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.process import Exited, Lost, NotStarted, Process, Signalled
from moorage_daemon.processes.spawn import SpawnError, spawn
from moorage_daemon.tools.port import Bench, NotBegun, Report
from moorage_protocol.acp import ToolCallContent, ToolCallLocation, ToolKind


SHOW_EVERY = 1.0  # seconds between looks at the output of a command that takes longer
SHOWN = 4 * 2**10  # characters of it that are shown meanwhile


class RunArguments(msgspec.Struct, frozen=True):
    """`command` is handed to `sh -c` as it is."""

    command: str


class Run:
    """Runs what it is told, after a person has seen exactly that and said yes."""

    name = "Run"
    kind = ToolKind.EXECUTE
    asks = True

    def title(self, arguments: RunArguments) -> str:
        """The command itself: what is shown is what runs."""
        return arguments.command

    def locations(self, arguments: RunArguments, cwd: str) -> list[ToolCallLocation]:
        """A command may touch anything; nothing is claimed."""
        return []

    def about(self, arguments: RunArguments, cwd: str) -> Call:
        """The command."""
        return Call(SHELL_TOOL, Shell(arguments.command))

    async def preview(self, arguments: RunArguments, bench: Bench) -> Sequence[ToolCallContent]:
        """The title says it all."""
        return ()

    async def run(self, arguments: RunArguments, bench: Bench) -> Report:
        """Run the command to its end; a cancelled one is asked to end, then made to."""
        return await run_supervised(arguments.command, bench)


async def run_supervised(command: str, bench: Bench) -> Report:
    """Run a command here; it is started before the first checkpoint.

    Raises `NotBegun` where no shell was started, also if that comes out later. Secrets reach it in
    variables and in no argument, where others could read them.
    """
    try:
        text, variables = filled_for_shell(command, bench.secrets)
    except UnclearPlace:
        raise NotBegun("A credential stands where it cannot be filled in.") from None
    if bench.is_secret:
        text, variables = _FROM_VARIABLE, {**variables, _VARIABLE: text}
    try:
        process = spawn(
            ["sh", "-c", text],
            cwd=Path(bench.cwd),
            env=tool_environment(os.environ, bench.lent) | variables,
        )
    except SpawnError as error:
        raise NotBegun(f"The command could not be started: {error}") from error
    bench.running.add(process)
    try:
        async with process.attended(), trio.open_nursery() as nursery:
            nursery.start_soon(_show, process, bench)
            await process.wait()
            nursery.cancel_scope.cancel()
    finally:
        bench.running.discard(process)
    return _report(process)


_VARIABLE = "MOORAGE_COMMAND"
_FROM_VARIABLE = f'eval "unset {_VARIABLE}\n${_VARIABLE}"'


async def _show(process: Process, bench: Bench) -> None:
    seen = 0
    while True:
        await trio.sleep(SHOW_EVERY)
        await process.more(seen)
        if process.output.total > seen:
            seen = process.output.total
            bench.progress(process.output.tail(SHOWN))


def _report(process: Process) -> Report:
    text, whole = process.output.text(), process.output.whole()
    match process.exit:
        case Exited(code=0):
            return Report(text, exit_code=0, whole=whole)
        case Exited(code=code):
            note = with_note(text, f"exit code {code}")
            return Report(note, ok=False, exit_code=code, whole=whole)
        case Signalled(number=number):
            note = with_note(text, f"ended by signal {number}")
        case NotStarted(reason=reason):
            raise NotBegun(f"The command could not be started: {reason}")
        case Lost() | None:
            note = with_note(text, "its supervisor was killed")
    return Report(note, ok=False, whole=whole)


def with_note(text: str, note: str) -> str:
    """What a command wrote, and how it ended where that is not simply well."""
    return f"{text.rstrip()}\n[{note}]".lstrip()
