"""Whether a command is, or could be, one that a forbidding rule means.

The doubt counts against the command: programs are known by their names in any directory, options
may stand between a rule's words, what a launcher is given counts like a command of its own, and
where a word is made by the shell nobody knows what it becomes.
"""

from collections.abc import Sequence
from enum import IntEnum

from moorage_daemon.grants.openers import (
    INTERPRETERS,
    LAUNCHERS,
    is_option,
    program_name,
    starts_others,
)
from moorage_daemon.grants.shell import Found, Word, commands_in


MAX_INSIDE = 4  # commands in arguments of commands; beyond that nobody is sure
SEEKERS = frozenset({"fd", "fdfind", "find", "function"})
CARRIERS = LAUNCHERS | INTERPRETERS | SEEKERS
SHELLS = frozenset(
    {"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "yash", "zsh"}
)
HEARERS = frozenset(
    {"at", "batch", "crontab", "ed", "ex", "gdb", "m4", "mysql", "parallel", "psql"}
)
CODE = ("-c", "-e", "-E", "-p", "-r", "--eval", "--print")  # what follows is in another language


class Touch(IntEnum):
    """Whether a rule is about a call."""

    NO = 0
    UNSURE = 1
    YES = 2


def touch_of_command(rule: Sequence[str], command: str, *, is_prefix: bool) -> Touch:
    """Whether one of the commands in a shell text begins with the rule's words, or is them."""
    if not rule:  # a rule of one exact text; others are no command that it means
        return Touch.NO
    return _touch(rule, commands_in(command), is_prefix=is_prefix, inside=0)


def touch_of_words(rule: Sequence[str], words: Sequence[str], *, is_prefix: bool) -> Touch:
    """The same of a program and its arguments."""
    found = Found((tuple(map(Word, words)),), is_certain=True)
    return _touch(rule, found, is_prefix=is_prefix, inside=0) if rule else Touch.NO


def _touch(rule: Sequence[str], found: Found, *, is_prefix: bool, inside: int) -> Touch:
    is_named = any(rule[0] in text.partition("=")[2] for text in found.assigned)
    worst = Touch.NO if found.is_certain and not is_named else Touch.UNSURE
    for words in found.commands:
        worst = max(worst, _touch_one(rule, words, is_prefix=is_prefix, inside=inside))
        if worst is Touch.YES:
            break
    return worst


def _touch_one(
    rule: Sequence[str], words: Sequence[Word], *, is_prefix: bool, inside: int
) -> Touch:
    worst = _meant(rule, words, is_prefix=is_prefix)
    if worst is Touch.YES or not words or not words[0].is_certain:
        return worst
    if program_name(words[0].text) in CARRIERS:
        if inside == MAX_INSIDE:
            return Touch.UNSURE
        return max(worst, _carried(rule, words, is_prefix=is_prefix, inside=inside + 1))
    texts = [word.text if word.is_certain else "" for word in words]
    return max(worst, Touch.UNSURE) if starts_others(texts, 1) else worst


def _carried(rule: Sequence[str], words: Sequence[Word], *, is_prefix: bool, inside: int) -> Touch:
    """What a launcher is given: any of its words may begin a command, or be the text of one."""
    worst = Touch.UNSURE if _hears_of_more(words) else Touch.NO
    for index in range(1, len(words)):
        worst = max(worst, _meant(rule, words[index:], is_prefix=is_prefix))
        if not words[index].is_certain or rule[0] in words[index].text:
            worst = max(worst, Touch.UNSURE)  # it may be the word itself, or in another language
        nested = commands_in(words[index].text)
        if len(nested.commands) != 1 or len(nested.commands[0]) > 1:
            worst = max(worst, _touch(rule, nested, is_prefix=is_prefix, inside=inside))
        if worst is Touch.YES:
            break
    return worst


def _meant(rule: Sequence[str], words: Sequence[Word], *, is_prefix: bool) -> Touch:
    """Whether the words begin with the rule's, `git-push` also as the two that it stands for."""
    found = _compared(rule, words, is_prefix=is_prefix)
    name = words[0].text.rpartition("/")[2] if words and words[0].is_certain else ""
    if not name.startswith("git-"):
        return found
    two = (Word("git"), Word(name.removeprefix("git-")), *words[1:])
    return max(found, _compared(rule, two, is_prefix=is_prefix))


def _hears_of_more(words: Sequence[Word]) -> bool:
    """Whether a launcher, or what it is given, hears of commands that are not seen here."""
    if program_name(words[0].text) in SEEKERS:
        return False
    return any(_is_hearer(words[index:]) for index in range(len(words)))


def _is_hearer(words: Sequence[Word]) -> bool:
    name, options = program_name(words[0].text), list[str]()
    if name not in INTERPRETERS:
        return name in HEARERS
    for word in words[1:]:
        if not word.text.startswith("-"):
            break
        options.append(word.text)
    is_alone = len(options) == len(words) - 1
    if name in SHELLS:
        return is_alone or any(is_option(option, "-s") for option in options)
    return is_alone or any(is_option(option, code) for option in options for code in CODE)


def _compared(rule: Sequence[str], words: Sequence[Word], *, is_prefix: bool) -> Touch:
    """Whether the words begin with the rule's; options between them are passed over."""
    at = 0
    for number, wanted in enumerate(rule):
        while number and at < len(words) and _is_passed_over(words, at, wanted):
            at += 1
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
