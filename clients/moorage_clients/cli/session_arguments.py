"""The words of the commands that work with sessions."""

import argparse
import math
from pathlib import Path

from moorage_clients.cli.exits import Exit
from moorage_clients.cli.grant_arguments import add_limits, limits
from moorage_clients.cli.invocation import (
    Attach,
    Cancel,
    Configure,
    Consent,
    Delete,
    Kill,
    Log,
    Ls,
    New,
    Pause,
    Prompt,
    Resume,
)
from moorage_clients.cli.keys import KEYS, KINDS, LABEL, is_key
from moorage_clients.cli.parsing import (
    SESSION,
    WITH_DAEMON,
    WITH_SESSION,
    Grammar,
    Wrong,
    all_session_ids,
    count,
    directories,
    files,
    first_session_id,
    offers,
    place,
    removable_session_ids,
    seconds,
    seq,
    session_ids,
)


SETTINGS = ("model", "model_provider", "temperature")


def add_session_commands(grammar: Grammar) -> None:
    """Add them, those that a person needs first in front."""
    for add in (_new, _prompt, _attach, _ls, _log, _cancel, _pause, _resume, _kill, _delete,
                _configure):  # fmt: skip
        add(grammar)


def _new(grammar: Grammar) -> None:
    parser = grammar.command(
        "new", "start a session and print its id", _build_new,
        about="Commands in it find what this shell finds: PATH, VIRTUAL_ENV and SSH_AUTH_SOCK "
        "of this terminal go with the session, and nothing else of its environment. Over "
        "--connect nothing goes: the daemon may be on another machine, and --cwd is a path there. "
        "With limits it stands on a grant: see moorage grant.",
        examples=("moorage new", "moorage new --cwd ~/project --mode chat",
                  "moorage new --tools Read,'Bash(git:*)' --calls 50 --usd 2 --minutes 30",
                  "env -u SSH_AUTH_SOCK moorage new        without your ssh agent"),
    )  # fmt: skip
    cwd = parser.add_argument("--cwd", metavar="DIR", help="where it works (default: here)")
    offers(cwd, directories)
    parser.add_argument(
        "--mode", choices=("chat", "code"), default="code", help="what it is for (default: code)"
    )
    add_limits(parser)


def _build_new(found: argparse.Namespace) -> New:
    given = "." if found.cwd is None else found.cwd
    path = Path(given).expanduser().absolute()
    if found.connect is None and not path.is_dir():
        raise Wrong(f"--cwd: {given} is not a directory")
    return New(str(path), found.mode, limits(found))


def _prompt(grammar: Grammar) -> None:
    parser = grammar.command(
        "prompt", "prompt a session and show what the agent says until the turn ends",
        _build_prompt,
        about="What the agent says goes to stdout, all else to stderr. Ctrl-C cancels the turn; "
        "pressed again it leaves the turn running and goes. A question for permission is put to "
        "you: y, n or always. Where there is no terminal, say --allow or --deny, or answer it "
        "from elsewhere. A key or password that the agent needs goes into --secret-file and not "
        "into the text: it is kept nowhere and shown to nobody, as [secret] stands for it.",
        means={Exit.OK: "the turn came to its end", Exit.FAILED: "it failed, or was refused"},
        examples=("moorage prompt 'what does this project do?'",
                  "git diff | moorage prompt k3f2 -",
                  "moorage prompt --deny --timeout 60 'sum up README.md' > summary.txt",
                  "pass show db | moorage prompt --secret-file - 'migrate the database at:'"),
        exits=(*WITH_SESSION[:-1], Exit.CANCELLED, Exit.KILLED, Exit.DETACHED),
    )  # fmt: skip
    words = parser.add_list(
        "words", metavar="[SESSION] TEXT", nargs="+",
        help=f"{SESSION}; the prompt, - reads it from stdin",
    )  # fmt: skip
    offers(words, first_session_id)
    parser.add_argument("--on-busy", choices=("queue", "refuse", "supersede"), default="queue",
                        help="when a turn runs already (default: queue)")  # fmt: skip
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds,
                        help="stop the turn after so long")  # fmt: skip
    secret = parser.add_argument(
        "--secret-file", metavar="FILE", action="append", default=[],
        help="add what is in FILE, as a secret of this turn; - reads it from stdin; repeatable",
    )  # fmt: skip
    offers(secret, files)
    _add_consent(parser)


def _build_prompt(found: argparse.Namespace) -> Prompt:
    if len(found.words) > 2:
        raise Wrong("more than [SESSION] TEXT: put the text in quotes")
    if [found.words[-1], *found.secret_file].count("-") > 1:
        raise Wrong("stdin can be read only once: give one of them as a file")
    return Prompt(
        session=found.words[0] if len(found.words) == 2 else None,
        text=found.words[-1],
        consent=_consent(found),
        on_busy=found.on_busy,
        timeout=found.timeout,
        secret_files=tuple(found.secret_file),
    )


def _add_consent(parser: argparse.ArgumentParser) -> None:
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--allow", action="store_true", help="say yes to every question")
    answer.add_argument("--deny", action="store_true", help="say no to every question")


def _consent(found: argparse.Namespace) -> Consent:
    return Consent(found.allow, found.deny)


def _attach(grammar: Grammar) -> None:
    parser = grammar.command(
        "attach", "follow a session, and prompt it line by line",
        lambda found: Attach(found.session, found.after, found.watch, _consent(found)),
        about="A line is a prompt, or answers the question that is open. Ctrl-C cancels what "
        "runs; /quit, Ctrl-D, or Ctrl-C while nothing runs leave. The session goes on in any "
        "case. A daemon that is restarted meanwhile is waited for, and nothing is missed.",
        examples=("moorage attach", "moorage attach k3f2 --from 120",
                  "moorage attach k3f2 --watch --json | jq -c .update"),
        exits=(*WITH_SESSION, Exit.DETACHED),
    )  # fmt: skip
    _add_session(parser)
    parser.add_argument("--from", metavar="SEQ", dest="after", type=place, default=0,
                        help="show the log from there, or from 'now' (default: all)")  # fmt: skip
    parser.add_argument("--watch", action="store_true", help="only look: no prompts, no questions")
    _add_consent(parser)


def _add_session(parser: argparse.ArgumentParser, *, killed: bool = False) -> None:
    session = parser.add_argument("session", metavar="SESSION", nargs="?", help=SESSION)
    offers(session, all_session_ids if killed else session_ids)


def _ls(grammar: Grammar) -> None:
    parser = grammar.command(
        "ls", "list the sessions, the last used first", lambda found: Ls(found.all),
        about="The one with * is the default of the directory you are in.",
        examples=("moorage ls", "moorage ls --all --json | jq -r .sessions[].sessionId"),
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also killed ones, and other people's")


def _log(grammar: Grammar) -> None:
    parser = grammar.command(
        "log", "print the log of a session, of a killed one too",
        lambda found: Log(found.session, tuple(found.kind), found.after),
        about="An entry a line: its number, when, the turn, what it is, and what it says. Kinds "
        f"are {', '.join(KINDS[:-1])} and {KINDS[-1]}.",
        examples=("moorage log k3f2 --kind prompt --kind verdict",
                  "moorage log k3f2 --from 120 --json"),
        exits=WITH_SESSION[:-1],
    )  # fmt: skip
    _add_session(parser, killed=True)
    parser.add_argument("--kind", metavar="KIND", action="append", choices=KINDS, default=[],
                        help="only entries of this kind; repeatable")  # fmt: skip
    parser.add_argument("--from", metavar="SEQ", dest="after", type=seq, default=0,
                        help="begin at this entry")  # fmt: skip


def _cancel(grammar: Grammar) -> None:
    parser = grammar.command(
        "cancel", "ask the turn that runs to stop",
        lambda found: Cancel(found.session, found.scope, found.generation),
        about="It answers at once; the turn then ends within the grace, with a verdict on record.",
        examples=("moorage cancel", "moorage cancel k3f2 --scope all"),
        exits=WITH_SESSION,
    )  # fmt: skip
    _add_session(parser)
    parser.add_argument("--scope", choices=("current", "queued", "all"),
                        help="which turns (default: the one that runs)")  # fmt: skip
    parser.add_argument("--generation", metavar="N", type=count, help="only if it is this turn")


def _pause(grammar: Grammar) -> None:
    parser = grammar.command(
        "pause", "let no more turns of a session start", lambda found: Pause(found.session),
        about="The turn that runs goes on to its end: to stop it, cancel. Prompts wait until the "
        "session is resumed. It stays paused over a restart of the daemon; prompts that waited "
        "then have ended, like turns that ran.",
        examples=("moorage pause", "moorage pause k3f2"),
        exits=WITH_SESSION,
    )  # fmt: skip
    _add_session(parser)


def _resume(grammar: Grammar) -> None:
    parser = grammar.command(
        "resume", "let turns of a paused session start again", lambda found: Resume(found.session),
        about="The first prompt that waits runs at once. It says how the session is then: idle, "
        "running, or requires_action.",
        examples=("moorage resume k3f2", "moorage resume --json | jq -r .state"),
        exits=WITH_SESSION,
    )  # fmt: skip
    _add_session(parser)


def _kill(grammar: Grammar) -> None:
    parser = grammar.command(
        "kill", "end sessions for ever, with every process of them", _build_kill,
        about="It needs neither the agent nor a client nor free disk. The log can still be read. "
        "Nothing runs of a session that ls calls damaged: it is no kill's, but delete removes it.",
        examples=("moorage kill k3f2 --reason 'runs in circles'", "moorage kill --all"),
        exits=(*WITH_DAEMON, Exit.NO_SESSION),
    )  # fmt: skip
    sessions = parser.add_list("sessions", metavar="SESSION", nargs="*",
                               help="ids or starts of ids")  # fmt: skip
    offers(sessions, session_ids)
    parser.add_argument("--all", action="store_true", help="all sessions that are not killed yet")
    parser.add_argument("--reason", help="to be read in the log")


def _build_kill(found: argparse.Namespace) -> Kill:
    if bool(found.sessions) == found.all:
        raise Wrong("name the sessions, or say --all")
    return Kill(tuple(found.sessions), found.all, found.reason)


def _delete(grammar: Grammar) -> None:
    parser = grammar.command(
        "delete", "remove sessions with all that is stored of them",
        lambda found: Delete(tuple(found.sessions), found.yes),
        about="What runs in them is stopped first. It cannot be undone: to keep the log, kill "
        "instead, or export before. It also removes a session that ls calls damaged. You are "
        "asked before; where there is no terminal, say --yes.",
        examples=("moorage delete k3f2", "moorage delete --yes k3f2 x7ab"),
        exits=(*WITH_DAEMON, Exit.NO_SESSION),
    )  # fmt: skip
    sessions = parser.add_list("sessions", metavar="SESSION", nargs="+",
                               help="ids or starts of ids")  # fmt: skip
    offers(sessions, removable_session_ids)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _configure(grammar: Grammar) -> None:
    parser = grammar.command(
        "configure", "change how a session is set up, or show it", _build_configure,
        about="It holds from the next turn on, survives restarts, and ends with the session. "
        f"Settings of the model are {', '.join(SETTINGS)}; all or none of them are taken. So are "
        f"those of the session: {', '.join(KEYS)}, and label.NAME. What is no plain text is JSON, "
        "a switch on or off; system_prompt=@FILE reads a file.",
        examples=("moorage configure k3f2 model=small temperature=0.2",
                  "moorage configure model_provider=      back to the default",
                  "moorage configure name='Night shift' system_prompt=@prompt.txt",
                  "moorage configure permissions='{\"deny\": [\"Bash(rm:*)\"]}' label.tenant=one"),
        exits=WITH_SESSION,
    )  # fmt: skip
    words = parser.add_list(
        "words", metavar="[SESSION] [KEY=VALUE ...]", nargs="*",
        help="a setting; KEY= goes back to the default",
    )  # fmt: skip
    offers(words, _session_or_setting)


def _session_or_setting(
    prefix: str, parsed_args: argparse.Namespace, **_: object
) -> dict[str, str]:
    settings = {f"{name}=": "" for name in (*SETTINGS, *KEYS)}
    return settings | first_session_id(prefix, parsed_args)


def _build_configure(found: argparse.Namespace) -> Configure:
    words: list[str] = found.words
    session = words.pop(0) if words and "=" not in words[0] else None
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not (key in SETTINGS or is_key(key)):
            known = ", ".join((*SETTINGS, *KEYS, f"{LABEL}NAME"))
            raise Wrong(f"{word!r}: settings are KEY=VALUE with {known}")
        settings[key] = value
    if settings.get("temperature"):
        _check_temperature(settings["temperature"])
    return Configure(session, tuple(settings.items()))


def _check_temperature(value: str) -> None:
    try:
        is_number = math.isfinite(float(value))
    except ValueError:
        is_number = False
    if not is_number:
        raise Wrong(f"temperature={value}: not a number")
