"""What the grammar of the command line is made of: commands, their help, their values."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from types import MappingProxyType
from typing import Any, Protocol

from moorage_clients.cli.exits import MEANINGS, Exit
from moorage_clients.cli.invocation import Command


HELP_WIDTH = 80  # columns
SESSION = "id of a session or the start of it (default: the last one of this directory)"

# How a command ends that talks to a daemon, and one that is about a session.
WITH_DAEMON = (Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NO_DAEMON)
WITH_SESSION = (*WITH_DAEMON, Exit.NO_SESSION, Exit.KILLED)


class Wrong(Exception):
    """The words do not make sense together; one line says why."""


Build = Callable[[argparse.Namespace], Command]


class _Help(argparse.RawDescriptionHelpFormatter):
    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        # A list whose name says by itself what may be left out and what may be repeated.
        if isinstance(action.metavar, str) and action.metavar.startswith("["):
            return action.metavar
        return super()._format_args(action, default_metavar)


class CommandParser(argparse.ArgumentParser):
    """A parser that lets flags stand between the words of a list, where argparse does not."""

    _list: str | None = None

    def add_list(self, dest: str, **settings: Any) -> argparse.Action:
        """Add the argument that takes all words that are no flags; there is one at most."""
        self._list = dest
        return self.add_argument(dest, **settings)

    def parse_known_args(  # type: ignore[override]  # the overloads say no more than this
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Read the words; what is left over is refused with the usage of this very command."""
        found = argparse.Namespace() if namespace is None else namespace
        _, left = super().parse_known_args(args, found)
        if self._list is not None:
            words, left = _words(left)
            setattr(found, self._list, [*getattr(found, self._list), *words])
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, []


def _words(left: list[str]) -> tuple[list[str], list[str]]:
    """What is a word of what argparse left over, and what looks like a flag."""
    end = left.index("--") if "--" in left else len(left)
    flags = [word for word in left[:end] if _is_flag(word)]
    words = [word for word in left[:end] if not _is_flag(word)]
    return words + left[end + 1 :], flags


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and " " not in word


class _Verbs(Protocol):
    """What `add_subparsers` gives; argparse has no public name for it."""

    def add_parser(self, name: str, **settings: Any) -> CommandParser: ...


@dataclass(frozen=True)
class Grammar:
    """Commands of one level; `made` are those of all levels that do something."""

    verbs: _Verbs
    made: list[argparse.ArgumentParser] = field(default_factory=list[argparse.ArgumentParser])

    def group(self, name: str, summary: str, about: str) -> "Grammar":
        """A command that is only the first word of others."""
        parser = self.verbs.add_parser(
            name,
            help=summary,
            description=_description(summary, about),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        parser.set_defaults(parser=parser)
        verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=CommandParser)
        return Grammar(verbs, self.made)

    def command(
        self,
        name: str,
        summary: str,
        build: Build,
        *,
        about: str = "",
        examples: Sequence[str],
        exits: Iterable[Exit] = WITH_DAEMON,
        means: Mapping[Exit, str] = MappingProxyType({}),
    ) -> CommandParser:
        """A command: `about` says more of it than the `summary` in the list of all.

        `exits` are its exit codes; `means` says what one means here, where that can be said better.
        """
        parser = self.verbs.add_parser(
            name,
            help=summary,
            description=_description(summary, about),
            epilog=f"examples:\n{_lines(examples)}\n\n{exit_codes(exits, means)}",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        parser.set_defaults(build=build, parser=parser)
        self.made.append(parser)
        return parser


def _description(summary: str, about: str) -> str:
    sentence = summary[0].upper() + summary[1:] + "."
    return "\n\n".join(filter(None, [sentence, fill(about, HELP_WIDTH)]))


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(f"  {text}" for text in texts)


def exit_codes(exits: Iterable[Exit], means: Mapping[Exit, str]) -> str:
    """The paragraph of a help text that says how a command ends."""
    meanings = {**MEANINGS, **means}
    return "exit codes:\n" + _lines(f"{code:<4} {meanings[code]}" for code in exits)


# ---- what a shell offers to complete


Offer = Callable[..., dict[str, str]]


def offers(action: argparse.Action, offer: Offer) -> None:
    """Have a shell complete an argument with what `offer` finds."""
    action.completer = offer  # type: ignore[attr-defined]  # where argcomplete looks for it


def session_ids(prefix: str, parsed_args: argparse.Namespace, **_: object) -> dict[str, str]:
    """The sessions that can be worked with, by id."""
    from moorage_clients.cli.offering import sessions  # only a shell that completes needs it

    return sessions(prefix, parsed_args, killed=False)


def all_session_ids(prefix: str, parsed_args: argparse.Namespace, **_: object) -> dict[str, str]:
    """The sessions that can be read, killed ones too."""
    from moorage_clients.cli.offering import sessions

    return sessions(prefix, parsed_args, killed=True)


def removable_session_ids(
    prefix: str, parsed_args: argparse.Namespace, **_: object
) -> dict[str, str]:
    """All sessions that can be removed, those that cannot be read too."""
    from moorage_clients.cli.offering import removable

    return removable(prefix, parsed_args)


def first_session_id(prefix: str, parsed_args: argparse.Namespace, **_: object) -> dict[str, str]:
    """The same for a list of words of which only the first may name a session."""
    return {} if getattr(parsed_args, "words", None) else session_ids(prefix, parsed_args)


def directories(prefix: str, **_: object) -> dict[str, str]:
    """The directories that begin like that."""
    from moorage_clients.cli.offering import paths

    return paths(prefix, only_directories=True)


def files(prefix: str, **_: object) -> dict[str, str]:
    """The files and directories that begin like that."""
    from moorage_clients.cli.offering import paths

    return paths(prefix, only_directories=False)


# ---- values


def count(value: str) -> int:
    """A number of things."""
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a number")
    return int(value)


def seq(value: str) -> int:
    """The place behind which entry `value` comes."""
    return max(0, count(value) - 1)


def place(value: str) -> int | None:
    """The same, or None for `now`."""
    return None if value == "now" else seq(value)


def seconds(value: str) -> float:
    """A length of time."""
    try:
        found = float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds") from None
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError("seconds are more than 0")
    return found
