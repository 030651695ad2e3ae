"""Terminal: a shell command in a terminal of the client that prompted.

Its processes are the client's: what ends them for sure is that client and not a supervisor of
ours, so this is for commands that belong to where the user is. A client without terminals leaves
them to `Run`'s way.
"""

from collections.abc import Sequence

import msgspec
import trio

from moorage_daemon.grants.calls import Call, Shell
from moorage_daemon.grants.rules import SHELL_TOOL
from moorage_daemon.tools.client import (
    Client,
    ClientFailed,
    ClientGone,
    ClientRefused,
    Ended,
    Screen,
    Terminal as ClientTerminal,
)
from moorage_daemon.tools.port import Bench, NotBegun, Report, ToolFailed
from moorage_daemon.tools.run import SHOW_EVERY, SHOWN, run_supervised, with_note
from moorage_protocol.acp import ToolCallContent, ToolCallLocation, ToolKind


class TerminalArguments(msgspec.Struct, frozen=True):
    """`command` is handed to `sh -c` as it is."""

    command: str


class Terminal:
    """Runs what it is told, where the user works, after a person has seen it and said yes."""

    name = "Terminal"
    kind = ToolKind.EXECUTE
    asks = True

    def title(self, arguments: TerminalArguments) -> str:
        """The command itself: what is shown is what runs."""
        return arguments.command

    def locations(self, arguments: TerminalArguments, cwd: str) -> list[ToolCallLocation]:
        """A command may touch anything; nothing is claimed."""
        return []

    def about(self, arguments: TerminalArguments, cwd: str) -> Call:
        """The command."""
        return Call(SHELL_TOOL, Shell(arguments.command))

    async def preview(
        self, arguments: TerminalArguments, bench: Bench
    ) -> Sequence[ToolCallContent]:
        """The title says it all."""
        return ()

    async def run(self, arguments: TerminalArguments, bench: Bench) -> Report:
        """Run the command to its end; whatever happens, the terminal is let go of.

        With secrets it runs here: they are not for a client.
        """
        client = bench.client
        if client is None or not client.has_terminals or bench.secrets or bench.is_secret:
            return await run_supervised(arguments.command, bench)
        try:
            return await _attended(client, arguments.command, bench)
        except ClientGone:
            raise ToolFailed("The client left: how the command ended is not known.") from None
        except ClientFailed:
            raise ToolFailed(
                "The client gave no answer: how the command ended is not known."
            ) from None


async def _attended(client: Client, command: str, bench: Bench) -> Report:
    terminal = client.terminal("sh", ["-c", command], bench.cwd)
    bench.running.add(terminal)
    try:
        await _start(terminal)
        return await _watched(terminal, bench)
    finally:
        bench.running.discard(terminal)
        terminal.kill()


async def _start(terminal: ClientTerminal) -> None:
    """Have it made; raises `NotBegun` where it certainly was not."""
    try:
        await terminal.start()
    except ClientRefused as refusal:
        raise NotBegun("The client did not run it.") from refusal


async def _watched(terminal: ClientTerminal, bench: Bench) -> Report:
    """Show what the command writes until it has ended; each look asks if the client still is."""
    shown = ""
    while True:
        ended = await terminal.ended(SHOW_EVERY)
        screen = await terminal.screen()
        ended = ended or screen.ended
        if ended is not None:
            return _report(screen, ended)
        if screen.text != shown:
            shown = screen.text
            bench.progress(shown[-SHOWN:])
        await trio.lowlevel.checkpoint()


def _report(screen: Screen, ended: Ended) -> Report:
    text = f"[the beginning is lost]\n{screen.text}" if screen.is_cut else screen.text
    if ended.signal is not None:
        return Report(with_note(text, f"ended by signal {ended.signal}"), ok=False)
    if ended.code:
        note = with_note(text, f"exit code {ended.code}")
        return Report(note, ok=False, exit_code=ended.code)
    return Report(text, exit_code=ended.code)
