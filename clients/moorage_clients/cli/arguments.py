"""The command line: words in, an `Invocation` out.

Flags that all commands have may stand before the command and behind it.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from moorage_clients.cli.daemon_arguments import add_daemon_commands
from moorage_clients.cli.exits import MEANINGS
from moorage_clients.cli.grant_arguments import add_grant_commands
from moorage_clients.cli.invocation import LOCAL_COMMANDS, Command, Invocation, Remote
from moorage_clients.cli.parsing import (
    CommandParser,
    Grammar,
    Wrong,
    directories,
    exit_codes,
    files,
    offers,
)
from moorage_clients.cli.record_arguments import add_record_commands
from moorage_clients.cli.session_arguments import add_session_commands
from moorage_protocol import __version__
from moorage_protocol.rendezvous import STATE_DIR_VARIABLE, default_state_dir


COMPLETION_VARIABLE = "_ARGCOMPLETE"  # set by the shell that wants to know how to go on

_ABOUT = """\
Sessions with AI agents that outlive the terminal they were started in.

A daemon keeps the sessions; every command finds it, and starts it where none runs. A session is
named by its id or the start of it, and where none is named the last one of the directory is
meant."""

_EPILOG = f"""\
examples:
  moorage new                               a session for this directory
  moorage prompt 'what is this project?'    ask, and watch the answer
  moorage attach                            all that was said, then live
  moorage doctor                            when something does not work

{exit_codes(MEANINGS, {})}

environment:
  {STATE_DIR_VARIABLE}   where the daemon lives (default: ~/.local/state/moorage)
  MOORAGE_CONFIG      the settings file (default: ~/.config/moorage/config.toml)
  NO_COLOR, FORCE_COLOR, CLICOLOR, CLICOLOR_FORCE   as everywhere

moorage COMMAND --help says more of each command."""


def parse(words: Sequence[str]) -> Invocation:
    """Read a command line; ends the process with code 2, or 0 for --help and --version."""
    parser = _parser()
    if COMPLETION_VARIABLE in os.environ:
        from moorage_clients.cli.offering import complete

        complete(parser)  # ends the process
    found = parser.parse_args(words)
    try:
        state_dir = Path(found.state_dir or default_state_dir(os.environ)).absolute()
        command: Command = found.build(found)
        return Invocation(command, str(state_dir), found.json, _remote(found, command))
    except (Wrong, LookupError) as error:
        _refuse(found, str(error))
    except FileNotFoundError:
        _refuse(found, "the directory you are in is not there any more")


def _refuse(found: argparse.Namespace, problem: str) -> NoReturn:
    parser: argparse.ArgumentParser = found.parser
    parser.error(problem)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moorage",
        description=_ABOUT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(state_dir=None, connect=None, token_file=None, json=False, parser=parser)
    parser.add_argument("--version", action="version", version=f"moorage {__version__}")
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, title="commands", parser_class=CommandParser
    )
    grammar = Grammar(commands)
    add_session_commands(grammar)
    add_grant_commands(grammar)
    add_record_commands(grammar)
    add_daemon_commands(grammar)
    for command in (parser, *grammar.made):
        _add_globals(command)
    return parser


def _add_globals(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("options of all commands")
    # Suppressed: what stands before the command is not undone by a default behind it.
    offers(
        group.add_argument(
            "--state-dir", metavar="DIR", default=argparse.SUPPRESS,
            help=f"where the daemon lives ({STATE_DIR_VARIABLE})",
        ),
        directories,
    )  # fmt: skip
    group.add_argument(
        "--connect", metavar="URL", default=argparse.SUPPRESS,
        help="a daemon that runs already: ws://127.0.0.1:PORT/acp, wss://… or unix:PATH",
    )  # fmt: skip
    offers(
        group.add_argument(
            "--token-file", metavar="FILE", default=argparse.SUPPRESS,
            help="what --connect proves itself with: a copy of token in its state directory",
        ),
        files,
    )  # fmt: skip
    group.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS,
        help="print JSON: one document, or a line for each message of a stream",
    )  # fmt: skip


def _remote(found: argparse.Namespace, command: Command) -> Remote | None:
    """The daemon that was named, if one was."""
    if found.connect is None:
        if found.token_file is not None:
            raise Wrong("--token-file is for --connect")
        return None
    if isinstance(command, LOCAL_COMMANDS):
        raise Wrong("--connect does not go with this command, which is about this machine")
    from moorage_clients.cli.remote import read_address  # what it takes, few commands need

    try:
        return Remote(read_address(found.connect, has_token=found.token_file is not None),
                      found.token_file)  # fmt: skip
    except ValueError as error:
        raise Wrong(str(error)) from error
