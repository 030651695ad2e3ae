"""From a parsed command line to an exit code: which module does it, and how failures are told."""

import json
import os
import sys
from collections.abc import Sequence

from moorage_clients.cli import arguments, invocation as said
from moorage_clients.cli.colour import Style
from moorage_clients.cli.exits import Exit, Failure
from moorage_clients.cli.invocation import Invocation


def run(words: Sequence[str]) -> int:
    """Run the command that `words` say; gives the exit code."""
    invocation = arguments.parse(words)
    try:
        return _dispatch(invocation)
    except Failure as failure:
        _tell(failure, as_json=invocation.json)
        return failure.code
    except KeyboardInterrupt:
        return Exit.DETACHED
    except BrokenPipeError:
        # The reader of our output has enough; the interpreter must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def _tell(failure: Failure, *, as_json: bool) -> None:
    if as_json:
        error = {"type": "error", "message": failure.problem, "exit": int(failure.code)}
        print(json.dumps(error | ({"hint": failure.hint} if failure.hint else {})))
        return
    from moorage_clients.cli.screen import open_screen

    notes = open_screen().notes
    notes.write(f"{notes.paint('moorage:', Style.BAD)} {failure.problem}\n")
    if failure.hint:
        notes.write(f"{failure.hint}\n")


def _dispatch(invocation: Invocation) -> int:
    # Imported where it is known what is needed: half the time of a small command goes there.
    match invocation.command:
        case said.Bridge():
            from moorage_clients.bridge import relay

            return relay.run(invocation.state_dir)
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

            screen.say(offering.script(command.shell))
            return Exit.OK
        case command:
            raise AssertionError(command)


def _with_client(invocation: Invocation) -> Exit:
    from moorage_clients.cli import attach, sessions, turns
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
        case said.Kill() as command:
            return sessions.kill(invocation, command, screen)
        case said.Configure() as command:
            return sessions.configure(invocation, command, screen)
        case said.Status():
            return sessions.status(invocation, screen)
        case command:
            raise AssertionError(command)
