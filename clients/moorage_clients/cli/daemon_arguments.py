"""The words of the commands about the daemon, the settings, and the command itself."""

import argparse
from pathlib import Path

from moorage_clients.cli.exits import Exit
from moorage_clients.cli.invocation import (
    Bridge,
    Completion,
    ConfigCheck,
    ConfigShow,
    DaemonLogs,
    DaemonRun,
    DaemonStart,
    DaemonStatus,
    DaemonStop,
    Doctor,
    Status,
    StoreCheck,
    StoreGc,
    StoreHealth,
)
from moorage_clients.cli.parsing import Grammar, count, files, offers


LOCAL = (Exit.OK, Exit.FAILED, Exit.USAGE)


def add_daemon_commands(grammar: Grammar) -> None:
    """Add them, those that a person needs first in front."""
    for add in (_status, _daemon, _store, _config, _doctor, _acp, _completion):
        add(grammar)


def _status(grammar: Grammar) -> None:
    grammar.command(
        "status", "say what the daemon is doing", lambda _: Status(),
        about="It starts no daemon and writes nothing: whether the store is healthy is what the "
        "last write showed. moorage store health tries it.",
        examples=("moorage status", "moorage status --json | jq .store.healthy"),
    )  # fmt: skip


def _daemon(grammar: Grammar) -> None:
    verbs = grammar.group(
        "daemon", "start, stop and look at the daemon",
        "Other commands start it by themselves where none runs.",
    )  # fmt: skip
    _with_daemon_flags(
        verbs.command(
            "start", "start the daemon in the background, if none runs",
            lambda found: DaemonStart(_daemon_flags(found)),
            about="The flags are for this start; what is to stay goes into the settings file.",
            examples=("moorage daemon start", "moorage daemon start --no-websocket"),
        )
    )  # fmt: skip
    _with_daemon_flags(
        verbs.command(
            "run", "be the daemon, in the foreground",
            lambda found: DaemonRun(_daemon_flags(found)),
            about="For service managers: it prints one line of JSON when it listens, logs to "
            "stderr, and ends with 0 after SIGTERM.",
            examples=("moorage daemon run --websocket 127.0.0.1:7777",),
            exits=LOCAL,
        )
    )  # fmt: skip
    verbs.command(
        "stop", "stop the daemon and wait until it is gone", lambda _: DaemonStop(),
        about="Turns are cancelled and recorded, clients are told. A second time insists.",
        examples=("moorage daemon stop",), exits=LOCAL,
    )  # fmt: skip
    verbs.command(
        "status", "say whether a daemon runs, and where", lambda _: DaemonStatus(),
        examples=("moorage daemon status", "moorage daemon status --json | jq -r .websocket"),
        exits=(Exit.OK, Exit.USAGE, Exit.NO_DAEMON), means={Exit.OK: "one runs"},
    )  # fmt: skip
    logs = verbs.command(
        "logs", "print the log of a daemon that runs in the background",
        lambda found: DaemonLogs(found.follow, found.lines),
        examples=("moorage daemon logs -n 20", "moorage daemon logs -f"), exits=LOCAL,
    )  # fmt: skip
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("-n", "--lines", metavar="N", type=count, default=200,
                      help="how many of the last ones (default: 200)")  # fmt: skip


def _with_daemon_flags(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--websocket", metavar="HOST:PORT", help="loopback only; port 0 is any")
    where.add_argument("--no-websocket", action="store_true", help="unix socket only")
    parser.add_argument("--verbose", action="store_true", help="log more")


def _add_config(parser: argparse.ArgumentParser) -> None:
    config = parser.add_argument("--config", metavar="FILE", help="settings, TOML (MOORAGE_CONFIG)")
    offers(config, files)


def _daemon_flags(found: argparse.Namespace) -> tuple[str, ...]:
    flags = [*_config_flags(found)]
    if found.websocket is not None:
        flags += ["--websocket", found.websocket]
    if found.no_websocket:
        flags.append("--no-websocket")
    if found.verbose:
        flags.append("--verbose")
    return tuple(flags)


def _config_flags(found: argparse.Namespace) -> tuple[str, ...]:
    return () if found.config is None else ("--config", str(Path(found.config).absolute()))


def _settings_flags(found: argparse.Namespace) -> tuple[str, ...]:
    """What was said that settings depend on, and no more: where a value comes from is told."""
    state_dir = (
        () if found.state_dir is None else ("--state-dir", str(Path(found.state_dir).absolute()))
    )
    return (*_config_flags(found), *state_dir)


def _store(grammar: Grammar) -> None:
    verbs = grammar.group(
        "store", "try, check and clean up what the daemon stores",
        "For operators. What runs goes on meanwhile.",
    )  # fmt: skip
    verbs.command(
        "health", "say whether the store can be written, and has space",
        lambda _: StoreHealth(),
        examples=("moorage store health", "moorage store health --json | jq .freeBytes"),
        means={Exit.OK: "it can", Exit.FAILED: "it cannot, or there is too little space"},
    )  # fmt: skip
    verbs.command(
        "check", "look at everything that is stored, byte for byte", lambda _: StoreCheck(),
        examples=("moorage store check", "moorage store check --json | jq -c .problems[]"),
        means={
            Exit.OK: "all of it is whole; a note tells of a file that was kept to be looked at",
            Exit.FAILED: "there are problems",
        },
    )  # fmt: skip
    verbs.command(
        "gc", "remove what retention does not keep, and what nobody names", lambda _: StoreGc(),
        about="It is done every hour as well.", examples=("moorage store gc",),
    )  # fmt: skip


def _config(grammar: Grammar) -> None:
    verbs = grammar.group(
        "config", "check the settings, or show them",
        "What is read is what a daemon started now would read; one that runs has what it read.",
    )  # fmt: skip
    _add_config(
        verbs.command(
            "check", "say whether a daemon would start with the settings file",
            lambda found: ConfigCheck(_settings_flags(found)),
            examples=("moorage config check", "moorage config check --config draft.toml"),
            exits=LOCAL, means={Exit.OK: "it would", Exit.FAILED: "it would not"},
        )
    )  # fmt: skip
    _add_config(
        verbs.command(
            "show", "print the settings in effect, and where each was said",
            lambda found: ConfigShow(_settings_flags(found)),
            about="Keys of providers are not shown: the file names where they are, and no more.",
            examples=("moorage config show", "moorage config show --json | jq .settings"),
            exits=LOCAL,
        )
    )  # fmt: skip


def _doctor(grammar: Grammar) -> None:
    _add_config(
        grammar.command(
            "doctor", "look for what is wrong, and say what to do about it",
            lambda found: Doctor(_settings_flags(found)),
            about="Looks at the installation, the settings, the system, the state directory and "
            "the daemon, if one runs; it starts none and changes nothing. What does not work is "
            "a problem, what could be better a warning.",
            examples=("moorage doctor", "moorage doctor --json | jq -c .findings[]"),
            exits=LOCAL, means={Exit.OK: "there is no problem", Exit.FAILED: "there is one"},
        )
    )  # fmt: skip


def _acp(grammar: Grammar) -> None:
    grammar.command(
        "acp", "be an editor's agent program: the bridge to the daemon", lambda _: Bridge(),
        about="Speaks the Agent Client Protocol on stdin and stdout until its editor ends it, and "
        "starts a daemon where none runs. Daemons may come and go meanwhile. For a daemon on "
        "another machine let the editor run ssh HOST moorage acp.",
        examples=("moorage acp", "ssh HOST moorage acp"), exits=(Exit.OK, Exit.USAGE),
    )  # fmt: skip


def _completion(grammar: Grammar) -> None:
    parser = grammar.command(
        "completion", "print what a shell needs to complete the commands",
        lambda found: Completion(found.shell),
        about="Commands, flags and ids of sessions are completed; no daemon is started for it.",
        examples=("eval \"$(moorage completion bash)\"      in ~/.bashrc",
                  "eval \"$(moorage completion zsh)\"       in ~/.zshrc, below compinit",
                  "moorage completion fish > ~/.config/fish/completions/moorage.fish"),
        exits=(Exit.OK, Exit.USAGE),
    )  # fmt: skip
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"),
                        help="bash, zsh or fish")  # fmt: skip
