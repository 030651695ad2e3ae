"""What a daemon would meet that is started here and now: its settings, its system, its store.

Everything is tried for real and nothing is left behind; nobody is served, and no session is
touched. What a client can see by itself is the client's to look at.
"""

import os
import resource
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import trio

from moorage_daemon.app import AppError, check_agents, chosen_store
from moorage_daemon.processes.environment import tool_environment
from moorage_daemon.processes.process import Exited
from moorage_daemon.processes.spawn import SpawnError, spawn
from moorage_daemon.settings import Chosen, Settings, SettingsError
from moorage_daemon.store.port import StoreError
from moorage_daemon.tools.workspace import kernel_confines
from moorage_protocol import __version__
from moorage_protocol.checkup import Checkup, Finding, State
from moorage_protocol.rendezvous import is_alive


ENOUGH_FILES = 1024  # descriptors; every client takes one, every command that runs some five
MAX_SAID = 200  # characters of what a trial printed instead
TRIAL_PATIENCE = 20.0  # seconds for three small processes, on a machine that has much to do

# Leaves a process behind that is in no group or session of the command's: who sweeps only those
# misses it. Where there is no setsid it is at least nobody's child.
RUNAWAY = "run=; command -v setsid >/dev/null && run=setsid; ($run sleep 600 & echo $!)"


async def check_settings(choose: Callable[[], Chosen]) -> Chosen:
    """The settings that `choose` reads, if a daemon could be started with them.

    Raises `SettingsError`, with the words of a start.
    """
    chosen = choose()
    try:
        await check_agents(chosen.settings)
        chosen_store(chosen.settings, chosen.settings.state_dir)
    except AppError as error:
        raise SettingsError(chosen.source, str(error)) from error
    return chosen


async def check_up(choose: Callable[[], Chosen]) -> Checkup:
    """Look at everything; one thing that is broken does not hide the others."""
    findings: list[Finding] = []
    try:
        chosen = await check_settings(choose)
    except SettingsError as error:
        advice = "A daemon does not start with this. Mend it; moorage config check looks again."
        findings.append(Finding("settings", State.BROKEN, str(error), advice))
    else:
        findings.append(Finding("settings", State.GOOD, chosen.source))
        findings += [finding async for finding in _keys(chosen.settings)]
        if not is_alive(chosen.settings.state_dir):  # a daemon looks after its store itself
            findings += await _store(chosen.settings)
    findings += [await try_commands(), _files(), _descriptors()]
    return Checkup(__version__, findings)


async def _keys(settings: Settings) -> AsyncGenerator[Finding]:
    """Whether the providers' keys can be read, without a word of what they are."""
    if not settings.providers:
        return
    from moorage_daemon.providers.failures import AuthFailed
    from moorage_daemon.providers.keys import read_key  # as in the daemon: only where one talks

    for name, provider in settings.providers.items():
        about = f"provider {name}"
        try:
            key = await read_key(provider)
        except AuthFailed as error:
            advice = "Set it where the daemon is started, and start the daemon again."
            yield Finding(about, State.WEAK, str(error), advice)
        else:
            said = provider.base_url + ("" if key is None else ", its key can be read")
            yield Finding(about, State.GOOD, said)


async def _store(settings: Settings) -> list[Finding]:
    choice = chosen_store(settings, settings.state_dir)
    path = choice.path
    if path is None or not await trio.Path(path).exists():
        return []
    try:
        await trio.to_thread.run_sync(choice.inspect)
    except StoreError as error:
        advice = f"Put it aside to begin anew, its sessions with it: mv {path} {path}.broken"
        return [Finding("store", State.BROKEN, str(error), advice)]
    return [Finding("store", State.GOOD, f"{path} can be opened")]


# ---- the system


async def try_commands(command: str = RUNAWAY) -> Finding:
    """Run a command that prints the id of a process it leaves behind, and see that it does not."""
    try:
        with trio.fail_after(TRIAL_PATIENCE):
            process = spawn(["sh", "-c", command], cwd=Path("/"), env=tool_environment(os.environ))
            async with process.attended():
                await process.wait()
    except (SpawnError, trio.TooSlowError) as error:
        said = f"none can be run: {error}" if isinstance(error, SpawnError) else "run too long"
        return Finding("commands", State.BROKEN, said, "Agents can read files, but run nothing.")
    said = process.output.text().strip()
    if process.exit != Exited(0) or not said.isdecimal():
        said = f"a trial ended with {process.exit}: {said[:MAX_SAID]}"
        return Finding("commands", State.BROKEN, said, "Agents can read files, but run nothing.")
    if _lives(int(said)):
        advice = "Commands that detach their children outlive a cancel here; end them by hand."
        said = "a child that detached itself was left behind"
        return Finding("commands", State.WEAK, said, advice)
    said = "run under a supervisor that leaves nothing behind"
    return Finding("commands", State.GOOD, said)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's by now
    return True


def _files() -> Finding:
    if kernel_confines():
        return Finding("files", State.GOOD, "kept beneath a session's directory by the kernel")
    said = f"this system ({sys.platform}) has no openat2: file tools follow no symbolic link"
    return Finding("files", State.WEAK, said)


def _descriptors() -> Finding:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY or most >= ENOUGH_FILES:
        return Finding("descriptors", State.GOOD, "enough files may be open")
    said = f"only {most} files may be open"
    return Finding("descriptors", State.WEAK, said, "Start the daemon behind: ulimit -n 4096")
