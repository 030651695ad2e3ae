"""Whether a command is, or could be, one that a forbidding rule means.

The doubt counts against the command: programs are known by their names in any directory, options
may stand between a rule's words, what a launcher is given counts like a command of its own, and
where a word is made by the shell nobody knows what it becomes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import islice

from moorage_daemon.grants.openers import (
    INTERPRETERS,
    LAUNCHERS,
    Options,
    program_name,
    starts_others,
)
from moorage_daemon.grants.shell import Found, Word, commands_in


MAX_PASSED_OVER = 100  # words between those of a rule; beyond that nobody is sure
MAX_INSIDE = 4  # commands in arguments of commands; beyond that nobody is sure
SEEKERS = frozenset({"fd", "fdfind", "find", "function"})
CARRIERS = LAUNCHERS | INTERPRETERS | SEEKERS
SHELLS = frozenset(
    {"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "yash", "zsh"}
)
HEARERS = frozenset(
    {"at", "batch", "crontab", "ed", "ex", "gdb", "m4", "mysql", "parallel", "psql"}
)
# What follows is in another language.
CODE = Options("-c", "-e", "-E", "-p", "-r", "--eval", "--print")
FROM_INPUT = Options("-s")  # of a shell


class Touch(IntEnum):
    """Whether a rule is about a call."""

    NO = 0
    UNSURE = 1
    YES = 2


@dataclass(frozen=True)
class Reading:
    """A text as forbidding rules read it; what does not depend on the rule is found out once."""

    found: Found

    @cached_property
    def commands(self) -> tuple["Command", ...]:
        """The commands it could start."""
        return tuple(map(Command, self.found.commands))

    @cached_property
    def programs(self) -> frozenset[str] | None:
        """What its commands can begin with, None where it may start more than is seen."""
        if not self.found.is_certain or self.found.assigned:
            return None
        if not all(command.is_all_there_is for command in self.commands):
            return None
        return frozenset(name for command in self.commands for name in command.names)


@dataclass(frozen=True)
class Command:
    """One of its commands."""

    words: Sequence[Word]

    @cached_property
    def is_carrier(self) -> bool:
        """Whether what it is given may be a command."""
        return program_name(self.words[0].text) in CARRIERS

    @cached_property
    def starts_others(self) -> bool:
        """Whether it may start a program by an option."""
        return starts_others([word.text if word.is_certain else "" for word in self.words], 1)

    @property
    def is_all_there_is(self) -> bool:
        """Whether it certainly starts nothing but what its first word says."""
        return self.words[0].is_certain and not self.is_carrier and not self.starts_others

    @property
    def names(self) -> tuple[str, ...]:
        """Its first word as rules can have it."""
        written = self.words[0].text
        name = written.rpartition("/")[2]
        return (written, name, "git") if name.startswith("git-") else (written, name)

    @cached_property
    def hears_of_more(self) -> bool:
        """Whether it, or what it is given, hears of commands that are not seen here."""
        if program_name(self.words[0].text) in SEEKERS:
            return False
        return any(_is_hearer(self.words, index) for index in range(len(self.words)))

    @cached_property
    def given(self) -> tuple[Reading, ...]:
        """Each word behind the first as the text of commands."""
        return tuple(reading_of(word.text) for word in self.words[1:])


def reading_of(command: str) -> Reading:
    """A shell text, read."""
    return Reading(commands_in(command))


def reading_of_words(words: Sequence[str]) -> Reading:
    """A program and its arguments, read."""
    commands = (tuple(map(Word, words)),) if words else ()
    return Reading(Found(commands, is_certain=True))


def touch_of(rule: Sequence[str], reading: Reading, *, is_prefix: bool) -> Touch:
    """Whether one of the commands begins with the rule's words, or is them.

    A rule without words is one of one exact text: others are no command that it means.
    """
    if not rule:
        return Touch.NO
    programs = reading.programs
    if programs is not None and rule[0] not in programs:
        return Touch.NO
    return _touch(rule, reading, is_prefix=is_prefix, inside=0)


def _touch(rule: Sequence[str], reading: Reading, *, is_prefix: bool, inside: int) -> Touch:
    found = reading.found
    is_named = any(rule[0] in text.partition("=")[2] for text in found.assigned)
    worst = Touch.NO if found.is_certain and not is_named else Touch.UNSURE
    for command in reading.commands:
        worst = max(worst, _touch_one(rule, command, is_prefix=is_prefix, inside=inside))
        if worst is Touch.YES:
            break
    return worst


def _touch_one(rule: Sequence[str], command: Command, *, is_prefix: bool, inside: int) -> Touch:
    words = command.words
    worst = _meant(rule, words, 0, is_prefix=is_prefix)
    if worst is Touch.YES or not words or not words[0].is_certain:
        return worst
    if command.is_carrier:
        if inside == MAX_INSIDE:
            return Touch.UNSURE
        return max(worst, _carried(rule, command, is_prefix=is_prefix, inside=inside + 1))
    return Touch.UNSURE if worst is Touch.NO and command.starts_others else worst


def _carried(rule: Sequence[str], command: Command, *, is_prefix: bool, inside: int) -> Touch:
    """What a launcher is given: any of its words may begin a command, or be the text of one."""
    words = command.words
    worst = Touch.UNSURE if command.hears_of_more else Touch.NO
    for index, nested in enumerate(command.given, 1):
        worst = max(worst, _meant(rule, words, index, is_prefix=is_prefix))
        if not words[index].is_certain or rule[0] in words[index].text:
            worst = max(worst, Touch.UNSURE)  # it may be the word itself, or in another language
        if len(nested.commands) != 1 or len(nested.commands[0].words) > 1:
            worst = max(worst, _touch(rule, nested, is_prefix=is_prefix, inside=inside))
        if worst is Touch.YES:
            break
    return worst


def _meant(rule: Sequence[str], words: Sequence[Word], start: int, *, is_prefix: bool) -> Touch:
    """Whether the words from `start` on begin with the rule's, `git-push` also as the two that it
    stands for."""
    found = _compared(rule, words, start, is_prefix=is_prefix)
    if start == len(words) or "git-" not in words[start].text or not words[start].is_certain:
        return found
    name = words[start].text.rpartition("/")[2]
    if not name.startswith("git-") or rule[0] != "git":
        return found
    verb = Word(name.removeprefix("git-"))
    two = (Word("git"), verb, *islice(words, start + 1, start + 1 + MAX_PASSED_OVER))
    return max(found, _compared(rule, two, 0, is_prefix=is_prefix))


def _is_hearer(words: Sequence[Word], start: int) -> bool:
    name, options = program_name(words[start].text), list[str]()
    if name == "xargs":
        return _is_fed(words, start)
    if name not in INTERPRETERS:
        return name in HEARERS
    for word in islice(words, start + 1, None):
        if not word.text.startswith("-"):
            break
        options.append(word.text)
    is_alone = start + len(options) == len(words) - 1
    if name in SHELLS:
        return is_alone or any(map(FROM_INPUT.has, options))
    return is_alone or any(map(CODE.has, options))


def _is_fed(words: Sequence[Word], start: int) -> bool:
    """Whether what `xargs` reads can become a command, or a part of the text of one."""
    rest = [word.text for word in islice(words, start + 1, start + 1 + MAX_PASSED_OVER)]
    mark, at = "", 0
    while at < len(rest) and rest[at].startswith("-"):
        option = rest[at]
        at += 2 if option in _XARGS_VALUED else 1
        if option == "-I":
            mark = rest[at - 1] if at <= len(rest) else ""
        elif option.startswith(_XARGS_MARKED):
            mark = option.removeprefix("--replace=").removeprefix("-I").removeprefix("-i")
            mark = "{}" if mark in {"", "--replace"} else mark
    started = rest[at:]
    if not started:
        return False
    name = program_name(started[0])
    if name in LAUNCHERS or (mark and mark in started[0]):
        return True
    is_all = len(words) - start - 1 <= MAX_PASSED_OVER
    return bool(mark) and (not is_all or (name in CARRIERS and any(mark in w for w in started)))


_XARGS_MARKED = ("-I", "-i", "--replace")
_XARGS_VALUED = frozenset({"-I", "-n", "-P", "-L", "-s", "-d", "-a", "-E"}) | {
    *("--arg-file", "--delimiter", "--max-args", "--max-chars", "--max-procs"),
    "--process-slot-var",
}


def _compared(rule: Sequence[str], words: Sequence[Word], start: int, *, is_prefix: bool) -> Touch:
    """Whether the words from `start` on begin with the rule's; options between them are passed
    over."""
    at = start
    for number, wanted in enumerate(rule):
        while number and at < len(words) and _is_passed_over(words, at, wanted):
            at += 1
            if at - start > MAX_PASSED_OVER:
                return Touch.UNSURE
        if at == len(words):
            return Touch.NO
        if not words[at].is_certain:
            return Touch.UNSURE
        given = words[at].text
        is_same = given == wanted or (number == 0 and given.rpartition("/")[2] == wanted)
        if not is_same:
            return Touch.NO
        at += 1
    return Touch.YES if is_prefix or at == len(words) else Touch.NO


def _is_passed_over(words: Sequence[Word], at: int, wanted: str) -> bool:
    """Whether a word is an option, or could be the value of the option before it."""
    word, before = words[at], words[at - 1]
    if not word.is_certain or word.text == wanted:
        return False
    is_value = before.is_certain and before.text.startswith("-") and "=" not in before.text
    return word.text.startswith("-") or is_value
