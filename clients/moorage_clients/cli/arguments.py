"""The command line: words in, an `Invocation` out.

Global flags may stand before the command and behind it.
"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from moorage_clients.cli.exits import MEANINGS
from moorage_clients.cli.invocation import (
    Attach,
    Bridge,
    Cancel,
    Command,
    Configure,
    Consent,
    DaemonLogs,
    DaemonRun,
    DaemonStart,
    DaemonStatus,
    DaemonStop,
    Invocation,
    Kill,
    Log,
    Ls,
    New,
    Prompt,
    Status,
)
from moorage_protocol import __version__
from moorage_protocol.rendezvous import STATE_DIR_VARIABLE, default_state_dir


SETTINGS = ("model", "model_provider", "temperature")

_EPILOG = "exit codes:\n" + "\n".join(f"  {code:<4} {said}" for code, said in MEANINGS.items())

_SESSION = "id of a session or the start of it (default: the last one of this directory)"


def parse(words: Sequence[str]) -> Invocation:
    """Read a command line; ends the process with code 2, or 0 for --help and --version."""
    parser = _parser()
    found = parser.parse_args(words)
    try:
        state_dir = Path(found.state_dir or default_state_dir(os.environ)).absolute()
        return Invocation(found.build(found), str(state_dir), found.json)
    except (_Wrong, LookupError) as error:
        usage: argparse.ArgumentParser = found.parser
        usage.error(str(error))


class _Wrong(Exception):
    """The words do not make sense together; one line says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moorage",
        description="Sessions with AI agents that outlive the terminal they were started in.",
        epilog=f"{_EPILOG}\n\nmoorage COMMAND --help shows an example of each command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(state_dir=None, json=False, parser=parser)
    _add_globals(parser)
    parser.add_argument("--version", action="version", version=f"moorage {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_daemon, _new, _prompt, _attach, _ls, _log, _cancel, _kill, _configure, _status):
        add(commands)
    _command(commands, "acp", "the bridge from an editor's stdio to the daemon", "moorage acp",
             lambda _: Bridge())  # fmt: skip
    return parser


def _add_globals(parser: argparse.ArgumentParser) -> None:
    # Suppressed: what stands before the command is not undone by a default behind it.
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help=f"where the daemon lives ({STATE_DIR_VARIABLE})",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print JSON: one document, or a line for each message of a stream",
    )


class _Commands(Protocol):
    """What `add_subparsers` gives; argparse has no public name for it."""

    def add_parser(self, name: str, **settings: Any) -> argparse.ArgumentParser: ...


_Build = Callable[[argparse.Namespace], Command]


def _command(
    commands: _Commands, name: str, summary: str, example: str, build: _Build
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(build=build, parser=parser)
    _add_globals(parser)
    return parser


def _daemon(commands: _Commands) -> None:
    parser = commands.add_parser(
        "daemon", help="start, stop and look at the daemon", allow_abbrev=False
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _with_daemon_flags(
        _command(verbs, "start", "start the daemon in the background, if none runs",
                 "moorage daemon start --no-websocket",
                 lambda found: DaemonStart(_daemon_flags(found)))
    )  # fmt: skip
    _with_daemon_flags(
        _command(verbs, "run", "be the daemon, in the foreground",
                 "moorage daemon run --websocket 127.0.0.1:7777",
                 lambda found: DaemonRun(_daemon_flags(found)))
    )  # fmt: skip
    _command(verbs, "stop", "stop the daemon and wait until it is gone; a second time insists",
             "moorage daemon stop", lambda _: DaemonStop())  # fmt: skip
    _command(verbs, "status", "say whether a daemon runs, and where",
             "moorage daemon status", lambda _: DaemonStatus())  # fmt: skip
    logs = _command(verbs, "logs", "print the log of a daemon that runs in the background",
                    "moorage daemon logs -f",
                    lambda found: DaemonLogs(found.follow, found.lines))  # fmt: skip
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("-n", "--lines", type=_count, default=200, help="how many of the last ones")


def _with_daemon_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="settings, TOML (MOORAGE_CONFIG)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--websocket", metavar="HOST:PORT", help="loopback only; port 0 is any")
    where.add_argument("--no-websocket", action="store_true", help="unix socket only")
    parser.add_argument("--verbose", action="store_true", help="log more")


def _daemon_flags(found: argparse.Namespace) -> tuple[str, ...]:
    flags: list[str] = []
    if found.config is not None:
        flags += ["--config", str(Path(found.config).absolute())]
    if found.websocket is not None:
        flags += ["--websocket", found.websocket]
    if found.no_websocket:
        flags.append("--no-websocket")
    if found.verbose:
        flags.append("--verbose")
    return tuple(flags)


def _new(commands: _Commands) -> None:
    parser = _command(commands, "new", "start a session and print its id",
                      "moorage new --cwd ~/project --mode chat",
                      lambda found: New(_directory(found.cwd), found.mode))  # fmt: skip
    parser.add_argument("--cwd", metavar="DIR", default=".", help="where it works (default: here)")
    parser.add_argument("--mode", choices=("chat", "code"), default="code", help="default: code")


def _directory(given: str) -> str:
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise _Wrong(f"--cwd: {given} is not a directory")
    return str(path)


def _prompt(commands: _Commands) -> None:
    parser = _command(
        commands, "prompt", "prompt a session and show what the agent says until the turn ends",
        "moorage prompt 'what does this project do?'\n"
        "  git diff | moorage prompt k3f2 -\n\n"
        "What the agent says goes to stdout, all else to stderr. Ctrl-C cancels the turn; pressed\n"
        "again it leaves the turn running and goes.",
        _build_prompt,
    )  # fmt: skip
    parser.add_argument("words", metavar="[SESSION] TEXT", nargs="+",
                        help=f"{_SESSION}; the prompt, - reads it from stdin")  # fmt: skip
    parser.add_argument("--on-busy", choices=("queue", "refuse", "supersede"), default="queue",
                        help="when a turn runs already (default: queue)")  # fmt: skip
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds,
                        help="stop the turn after so long")  # fmt: skip
    _add_consent(parser)


def _build_prompt(found: argparse.Namespace) -> Prompt:
    if len(found.words) > 2:
        raise _Wrong("more than [SESSION] TEXT: put the text in quotes")
    session = found.words[0] if len(found.words) == 2 else None
    return Prompt(session, found.words[-1], _consent(found), found.on_busy, found.timeout)


def _add_consent(parser: argparse.ArgumentParser) -> None:
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--allow", action="store_true", help="say yes to every question")
    answer.add_argument("--deny", action="store_true", help="say no to every question")


def _consent(found: argparse.Namespace) -> Consent:
    return Consent(found.allow, found.deny)


def _attach(commands: _Commands) -> None:
    parser = _command(
        commands, "attach", "follow a session, and prompt it line by line",
        "moorage attach k3f2 --from 120\n\n"
        "A line is a prompt, or answers the question that is open. Ctrl-C cancels what runs;\n"
        "/quit, Ctrl-D, or Ctrl-C while nothing runs leave. The session goes on in any case.",
        lambda found: Attach(found.session, found.after, found.watch, _consent(found)),
    )  # fmt: skip
    _add_session(parser)
    parser.add_argument("--from", metavar="SEQ", dest="after", type=_place, default=0,
                        help="show the log from there, or from 'now' (default: all)")  # fmt: skip
    parser.add_argument("--watch", action="store_true", help="only look: no prompts, no questions")
    _add_consent(parser)


def _add_session(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", nargs="?", help=_SESSION)


def _ls(commands: _Commands) -> None:
    parser = _command(commands, "ls", "list the sessions, the last used first; * is the default",
                      "moorage ls --all", lambda found: Ls(found.all))  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also killed ones, and other people's")


def _log(commands: _Commands) -> None:
    parser = _command(commands, "log", "print the log of a session, of a killed one too",
                      "moorage log k3f2 --kind prompt --kind verdict",
                      lambda found: Log(found.session, tuple(found.kind), found.after))  # fmt: skip
    _add_session(parser)
    parser.add_argument("--kind", action="append", default=[], help="only entries of this kind")
    parser.add_argument("--from", metavar="SEQ", dest="after", type=_seq, default=0,
                        help="begin at this entry")  # fmt: skip


def _cancel(commands: _Commands) -> None:
    parser = _command(
        commands, "cancel", "ask the turn that runs to stop", "moorage cancel k3f2 --scope all",
        lambda found: Cancel(found.session, found.scope, found.generation),
    )  # fmt: skip
    _add_session(parser)
    parser.add_argument("--scope", choices=("current", "queued", "all"),
                        help="which turns (default: the one that runs)")  # fmt: skip
    parser.add_argument("--generation", metavar="N", type=_count, help="only if it is this turn")


def _kill(commands: _Commands) -> None:
    parser = _command(commands, "kill", "end sessions for ever, with every process of them",
                      "moorage kill k3f2 --reason 'runs in circles'", _build_kill)  # fmt: skip
    parser.add_argument("sessions", metavar="SESSION", nargs="*", help="ids or starts of ids")
    parser.add_argument("--all", action="store_true", help="all sessions that are not killed yet")
    parser.add_argument("--reason", help="to be read in the log")


def _build_kill(found: argparse.Namespace) -> Kill:
    if bool(found.sessions) == found.all:
        raise _Wrong("name the sessions, or say --all")
    return Kill(tuple(found.sessions), found.all, found.reason)


def _configure(commands: _Commands) -> None:
    parser = _command(
        commands, "configure", "change the model settings of a session, or show them",
        "moorage configure k3f2 model=small temperature=0.2 model_provider=",
        _build_configure,
    )  # fmt: skip
    parser.add_argument("words", metavar="[SESSION] KEY=VALUE", nargs="*",
                        help=f"{', '.join(SETTINGS)}; KEY= goes back to the default")  # fmt: skip


def _build_configure(found: argparse.Namespace) -> Configure:
    words: list[str] = found.words
    session = words.pop(0) if words and "=" not in words[0] else None
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in SETTINGS:
            raise _Wrong(f"{word!r}: settings are KEY=VALUE with {', '.join(SETTINGS)}")
        settings[key] = value
    if settings.get("temperature"):
        _temperature(settings["temperature"])
    return Configure(session, tuple(settings.items()))


def _temperature(value: str) -> None:
    try:
        is_number = math.isfinite(float(value))
    except ValueError:
        is_number = False
    if not is_number:
        raise _Wrong(f"temperature={value}: not a number")


def _status(commands: _Commands) -> None:
    _command(commands, "status", "what the daemon is doing", "moorage status --json",
             lambda _: Status())  # fmt: skip


# ---- values


def _count(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a number")
    return int(value)


def _seq(value: str) -> int:
    """The place behind which entry `value` comes."""
    return max(0, _count(value) - 1)


def _place(value: str) -> int | None:
    return None if value == "now" else _seq(value)


def _seconds(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds") from None
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError("seconds are more than 0")
    return found
