"""From a parsed command line to an exit code: which module does it, and how failures are told."""

import json
import os
import sys
from collections.abc import Sequence

from moorage_clients.cli import arguments, invocation as said
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Invocation, Remote


def run(words: Sequence[str]) -> int:
    """Run the command that `words` say; gives the exit code."""
    _open_streams()
    invocation = arguments.parse(words)
    try:
        code = _dispatch(invocation)
        sys.stdout.flush()
    except Failure as failure:
        return _tell(failure, as_json=invocation.json)
    except KeyboardInterrupt:
        return Exit.DETACHED
    except BrokenPipeError:
        _write_no_more()  # the reader of our output has enough
        return Exit.OK
    except UnicodeEncodeError:
        return _tell(Failure(Exit.USAGE, NOT_TEXT), as_json=invocation.json)
    except OSError as error:
        _write_no_more()
        place = "" if error.filename is None else f"{error.filename}: "
        problem = f"{place}{error.strerror or type(error).__name__}"
        return _tell(Failure(Exit.FAILED, problem), as_json=invocation.json)
    return code


NOT_TEXT = "The command line, or the name of this directory, holds bytes that are no UTF-8 text."


def _open_streams() -> None:
    """Give every standard stream that the caller closed a place that swallows it.

    Else the first thing that is opened takes its number, and what is printed goes there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _write_no_more() -> None:
    """The interpreter flushes at its end, and must not meet the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(failure: Failure, *, as_json: bool) -> int:
    if as_json:
        error = {"type": "error", "message": failure.problem, "exit": int(failure.code)}
        print(json.dumps(error | ({"hint": failure.hint} if failure.hint else {})))
        return failure.code
    from moorage_clients.cli.screen import open_screen

    notes = open_screen().notes
    notes.write(f"{notes.paint('moorage:', Style.BAD)} {failure.problem}\n")
    if failure.hint:
        notes.write(f"{failure.hint}\n")
    return failure.code


def _dispatch(invocation: Invocation) -> int:
    # Imported where it is known what is needed: half the time of a small command goes there.
    match invocation.command:
        case said.Bridge():
            from moorage_clients.bridge import relay

            if invocation.remote is None:
                return relay.run(invocation.state_dir)
            return _bridge_to(invocation.remote, invocation.state_dir)
        case (
            said.DaemonStart()
            | said.DaemonRun()
            | said.DaemonStop()
            | said.DaemonStatus()
            | said.DaemonLogs()
        ):
            return _daemon(invocation)
        case said.ConfigCheck() | said.ConfigShow() | said.Doctor() | said.Completion():
            return _upkeep(invocation)
        case _:
            return _with_client(invocation)


def _bridge_to(remote: Remote, state_dir: str) -> int:
    """The bridge to a daemon that was named by its address."""
    from moorage_clients.bridge import elsewhere, hello, relay
    from moorage_clients.cli.remote import name_of, token_of
    from moorage_clients.cli.starting import prepare

    token = token_of(remote)
    place = (
        elsewhere.UnixPlace(remote.address.removeprefix("unix:"))
        if token is None
        else elsewhere.WebsocketPlace(remote.address, token)
    )
    prepare(state_dir)
    return relay.run_with(place, hello.IdentityFiles(state_dir, name_of(remote)))


def _daemon(invocation: Invocation) -> Exit:
    from moorage_clients.cli import daemon

    match invocation.command:
        case said.DaemonStart() as command:
            return daemon.start(invocation, command)
        case said.DaemonRun() as command:
            return daemon.run(invocation, command)
        case said.DaemonLogs() as command:
            return daemon.logs(invocation, command)
        case said.DaemonStop():
            return daemon.stop(invocation)
        case _:
            return daemon.status(invocation)


def _upkeep(invocation: Invocation) -> Exit:
    from moorage_clients.cli.screen import open_screen

    screen = open_screen()
    match invocation.command:
        case said.ConfigCheck() as command:
            from moorage_clients.cli import config

            return config.check(invocation, command, screen)
        case said.ConfigShow() as command:
            from moorage_clients.cli import config

            return config.show(invocation, command, screen)
        case said.Doctor() as command:
            from moorage_clients.cli import doctor

            return doctor.doctor(invocation, command, screen)
        case said.Completion() as command:
            from moorage_clients.cli import offering

            script = offering.script(command.shell)
            if invocation.json:
                screen.document({"shell": command.shell, "script": script})
            else:
                screen.say(script)
            return Exit.OK
        case command:
            raise AssertionError(command)


def _records(invocation: Invocation) -> Exit:
    from moorage_clients.cli import files, views
    from moorage_clients.cli.screen import open_screen

    screen = open_screen()
    match invocation.command:
        case said.Usage() as command:
            return views.usage(invocation, command, screen)
        case said.Artifacts() as command:
            return views.artifacts(invocation, command, screen)
        case said.Export() as command:
            return files.export(invocation, command, screen)
        case said.Import() as command:
            return files.import_(invocation, command, screen)
        case command:
            raise AssertionError(command)


def _with_client(invocation: Invocation) -> Exit:
    from moorage_clients.cli import attach, pausing, removing, sessions, turns
    from moorage_clients.cli.screen import open_screen

    screen = open_screen()
    match invocation.command:
        case said.Prompt() as command:
            return turns.prompt(invocation, command, screen)
        case said.Attach() as command:
            return attach.attach(invocation, command, screen)
        case said.New() as command:
            return sessions.new(invocation, command, screen)
        case said.Ls() as command:
            return sessions.ls(invocation, command, screen)
        case said.Log() as command:
            return sessions.log(invocation, command, screen)
        case said.Cancel() as command:
            return sessions.cancel(invocation, command, screen)
        case said.Pause() | said.Resume() as command:
            return pausing.pause_or_resume(invocation, command, screen)
        case said.Kill() as command:
            return sessions.kill(invocation, command, screen)
        case said.Delete() as command:
            return removing.delete(invocation, command, screen)
        case said.Configure() as command:
            return sessions.configure(invocation, command, screen)
        case said.Usage() | said.Artifacts() | said.Export() | said.Import():
            return _records(invocation)
        case said.Status():
            return sessions.status(invocation, screen)
        case said.StoreHealth() | said.StoreCheck() | said.StoreGc():
            return _about_the_store(invocation)
        case command:
            return _about_grants(invocation)


def _about_the_store(invocation: Invocation) -> Exit:
    from moorage_clients.cli import store
    from moorage_clients.cli.screen import open_screen

    screen = open_screen()
    match invocation.command:
        case said.StoreHealth():
            return store.health(invocation, screen)
        case said.StoreCheck():
            return store.check(invocation, screen)
        case _:
            return store.gc(invocation, screen)


def _about_grants(invocation: Invocation) -> Exit:
    from moorage_clients.cli import grants
    from moorage_clients.cli.screen import open_screen

    screen = open_screen()
    match invocation.command:
        case said.GrantList() as command:
            return grants.list_grants(invocation, command, screen)
        case said.GrantShow() as command:
            return grants.show(invocation, command, screen)
        case said.GrantRaise() as command:
            return grants.raise_limits(invocation, command, screen)
        case said.GrantClose() as command:
            return grants.close(invocation, command, screen)
        case said.GrantGc():
            return grants.gc(invocation, screen)
        case command:
            raise AssertionError(command)
