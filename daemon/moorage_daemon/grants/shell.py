"""Shell text, read in two ways that err on opposite sides.

`plain_words` reads a command of which nothing but words is left for the shell to see: whatever it
does not know is no plain command. `commands_in` finds every command a text could start: whatever
it does not know makes a word, or the whole, uncertain. A rule that allows asks the first, a rule
that forbids the second, so that where this module and a shell disagree nothing runs unasked.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from moorage_daemon.grants.doubts import (
    is_plain_backtick,
    is_plain_dollar,
    is_plain_redirect,
    is_run_later,
)


MAX_COMMAND = 64 * 2**10  # characters; who writes more is not answered by rules
MAX_NESTING = 32  # substitutions in substitutions

# Words that a shell takes for itself where a command's name could stand.
RESERVED = frozenset({"!", "{", "}", "[[", "case", "coproc", "do", "done", "elif", "else"}) | {
    *("esac", "fi", "for", "function", "if", "in", "select", "then", "time", "until", "while")
}
_META = re.escape(";&|<>()$`\\{}*?[]~#!^")  # outside of quotes these are more than themselves
_QUOTE_OR_META = re.compile(f"['\"{_META}]")
_PIECE = re.compile(rf""" +|([^ '"{_META}]+)|'([^']*)'|"([^"$`\\!]*)\"""")
_MARK = "\ue000"  # it cannot be printed, so it stands in no command that is read as words
_MARKED = re.compile(f"{_MARK}(\\d+){_MARK}")
_ORDINARY = re.compile(r"[^;&|()\n\r \t#\\'\"$`<>*?\[\]{}~!^]+")
_IN_DOUBLE_QUOTES = re.compile(r'[^"\\$`]+')
_LEADING = RESERVED - {"coproc", "function"}  # behind which a command follows
_SEPARATORS = frozenset(";&|()\n\r")


def plain_words(command: str, filled: Sequence[str] = ()) -> tuple[str, ...] | None:
    """The words of a command that every shell reads alike; None if it is anything more.

    A reference to one of the credentials that are `filled` in behind the shell's back is a part of
    a word like any other, save of the first, which says what is started; no other one is.
    """
    if len(command) > MAX_COMMAND or not command.isprintable():
        return None  # nobody approves what they cannot see
    text = _with_marks(command, filled) if filled and "${CRED:" in command else command
    words = _split(text)
    if not words or words[0] in RESERVED or "=" in words[0]:
        return None
    if "[" in text and any(is_run_later(word, is_assigned=False) for word in words):
        return None
    if text is command:
        return tuple(words)
    return None if _MARK in words[0] else _with_references(words, filled)


def _split(text: str) -> list[str] | None:
    """The words of a printable text; None if there is more in it than words."""
    if _QUOTE_OR_META.search(text) is None:
        return text.split()
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return None
        if piece.lastindex is None:  # spaces
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + piece[piece.lastindex]
        at = piece.end()
    return words if word is None else [*words, word]


def _with_marks(command: str, filled: Sequence[str]) -> str:
    """The command with a mark and a number, which no printable text has, in place of each."""
    for number, name in enumerate(filled):
        command = command.replace(f"${{CRED:{name}}}", f"{_MARK}{number}{_MARK}")
    return command


def _with_references(words: Sequence[str], filled: Sequence[str]) -> tuple[str, ...]:
    def reference(found: re.Match[str]) -> str:
        return f"${{CRED:{filled[int(found[1])]}}}"

    return tuple(_MARKED.sub(reference, word) for word in words)


class Word(msgspec.Struct, frozen=True):
    """A word of a command; an uncertain one may become anything, several words or none."""

    text: str
    is_certain: bool = True


class Found(msgspec.Struct, frozen=True):
    """The commands a text could start; an uncertain text may start others beside.

    `assigned` are the values given to variables, which can say what a program starts.
    """

    commands: tuple[tuple[Word, ...], ...]
    is_certain: bool
    assigned: tuple[str, ...] = ()


def commands_in(text: str) -> Found:
    """Every command in a shell text, in substitutions and subshells too."""
    if len(text) > MAX_COMMAND:
        return Found((), is_certain=False)
    words = plain_words(text)
    found = _scanned(text) if words is None else _plain(words)
    return msgspec.structs.replace(found, is_certain=False) if _is_run_later(found) else found


def _is_run_later(found: Found) -> bool:
    words = (word.text for command in found.commands for word in command)
    return any(is_run_later(word, is_assigned=False) for word in words) or any(
        is_run_later(word, is_assigned=True) for word in found.assigned
    )


def _plain(words: Sequence[str]) -> Found:
    assigned = tuple(word for word in words if "=" in word and _is_assignment(word))
    return Found((tuple(map(Word, words)),), is_certain=True, assigned=assigned)


def _scanned(text: str) -> Found:
    scan = _Scan(text)
    scan.read_all()
    commands = [_without_lead(words) for words in scan.commands]
    assigned = [word.text for words in scan.commands for word in words if _is_assignment(word.text)]
    return Found(tuple(words for words in commands if words), scan.is_certain, tuple(assigned))


def _without_lead(words: list[Word]) -> tuple[Word, ...]:
    """The command without the reserved words and assignments in front of it."""
    is_timed = False
    for index, word in enumerate(words):
        is_of_time = is_timed and word.text in {"-p", "--"}
        if word.text not in _LEADING and not _is_assignment(word.text) and not is_of_time:
            return tuple(words[index:])
        is_timed = word.text == "time" or is_of_time
    return ()


def _is_assignment(text: str) -> bool:
    name, equals, _ = text.partition("=")
    name = name.removesuffix("+").partition("[")[0]
    return bool(equals) and name.isidentifier()


@dataclass
class _Scan:
    """Reads a text once, from its start to its end; what is nested is read in place."""

    text: str
    at: int = 0
    depth: int = 0
    is_certain: bool = True
    commands: list[list[Word]] = field(default_factory=list[list[Word]])

    def read_all(self) -> None:
        while self.at < len(self.text):
            self._read_until("")
            self.at += 1  # a closing mark that nothing opened

    def _read_until(self, end: str) -> None:
        """Read commands up to `end`, ")" or "`", or to the end of the text."""
        reader = _Reader(self)
        opened = 0  # brackets in a substitution
        while self.at < len(self.text):
            ordinary = _ORDINARY.match(self.text, self.at)
            if ordinary is not None:
                self.at = ordinary.end()
                reader.add(ordinary[0])
                continue
            letter = self.text[self.at]
            if letter == end and not (opened and letter == ")"):
                break
            if letter in _SEPARATORS:
                self.at += 1
                self.is_certain &= letter != "\r"  # to a shell it is a letter
                opened += (letter == "(") - (letter == ")" and opened > 0)
                reader.end_command()
            elif letter in " \t":
                self.at += 1
                reader.end_word()
            elif letter == "#" and not reader.is_in_word:
                self.is_certain &= not self.depth
                self.at = _index(self.text, "\n", self.at)
            elif not self._special(letter, reader):
                self.at += 1
                reader.add(letter, is_certain=letter not in "*?[]{}~!^")
        reader.end_command()

    def _special(self, letter: str, reader: "_Reader") -> bool:
        """Read what begins with a letter that means more than itself, if it is one."""
        match letter:
            case "\\":
                self._escape(reader)
            case "'":
                self._single(reader)
            case '"':
                self._double(reader)
            case "$":
                self._dollar(reader)
            case "`":
                self._backtick(reader)
            case "<" | ">":
                self._redirect(reader)
            case _:
                return False
        return True

    def _nested(self, opening: int, end: str) -> None:
        """What stands in a substitution, as commands of their own."""
        self.at += opening
        self.depth += 1
        if self.depth > MAX_NESTING:
            self.is_certain = False
            self.at = len(self.text)
        else:
            self._read_until(end)
            self.at += 1
        self.depth -= 1

    def _escape(self, reader: "_Reader") -> None:
        following = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if following != "\n":
            reader.add(following)

    def _single(self, reader: "_Reader") -> None:
        end = _index(self.text, "'", self.at + 1)
        self.is_certain &= end < len(self.text)
        reader.add(self.text[self.at + 1 : end])
        self.at = end + 1

    def _double(self, reader: "_Reader") -> None:
        self.at += 1
        reader.add("")
        while self.at < len(self.text) and self.text[self.at] != '"':
            letter = self.text[self.at]
            if letter == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                self.at += 2
                if following != "\n":
                    reader.add(following if following in '$`"\\' else "\\" + following)
            elif letter == "$":
                self._dollar(reader, is_quoted=True)
            elif letter == "`":
                self._backtick(reader)
            else:
                ordinary = _IN_DOUBLE_QUOTES.match(self.text, self.at)
                assert ordinary is not None, "all others were looked for"
                self.at = ordinary.end()
                reader.add(ordinary[0])
        self.is_certain &= self.at < len(self.text)
        self.at += 1

    def _dollar(self, reader: "_Reader", *, is_quoted: bool = False) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        self.is_certain &= is_plain_dollar(self.text, self.at, is_quoted=is_quoted)
        reader.add("", is_certain=False)
        if following == "(":
            self._nested(2, ")")
        elif following == "'" and not is_quoted:
            self._ansi(reader)
        else:
            self.at += 1
            reader.add("$")

    def _ansi(self, reader: "_Reader") -> None:
        """`$'…'`, in which a backslash hides a quotation mark and can spell any letter."""
        self.at += 2
        while self.at < len(self.text) and self.text[self.at] != "'":
            self.at += 2 if self.text[self.at] == "\\" else 1
        self.is_certain &= self.at < len(self.text)
        self.at += 1

    def _backtick(self, reader: "_Reader") -> None:
        self.is_certain &= is_plain_backtick(self.text, self.at)
        reader.add("", is_certain=False)
        self._nested(1, "`")

    def _redirect(self, reader: "_Reader") -> None:
        """`<`, `>` and what belongs to them; a file that is read or written is no command."""
        reader.begin_target()
        start = self.at
        while self.text[self.at : self.at + 1] in {"<", ">", "&", "|"}:
            self.at += 1
        if self.is_certain:
            self.is_certain = is_plain_redirect(self.text, start, self.at, is_nested=self.depth > 0)
        if self.text[self.at : self.at + 1] == "(":
            reader.add("", is_certain=False)
            self._nested(1, ")")


@dataclass
class _Reader:
    """Puts letters together to words, and words to the command of one nesting."""

    scan: _Scan
    words: list[Word] = field(default_factory=list[Word])
    letters: list[str] = field(default_factory=list[str])
    is_in_word: bool = False
    is_certain: bool = True
    is_target: bool = False

    def add(self, text: str, *, is_certain: bool = True) -> None:
        self.letters.append(text)
        self.is_in_word = True
        self.is_certain &= is_certain

    def end_word(self) -> None:
        if not self.is_in_word:
            return
        word = Word("".join(self.letters), self.is_certain)
        if not self.is_target:
            self.words.append(word)
        if word.text == "case" and self.scan.depth:
            self.scan.is_certain = False  # its patterns end with a bracket that closes nothing
        self.letters, self.is_in_word, self.is_certain = [], False, True
        self.is_target = False

    def begin_target(self) -> None:
        """A file's name follows; a number in front says which of the open files it becomes."""
        if self.is_in_word and "".join(self.letters).isdigit():
            self.letters, self.is_in_word = [], False
        self.end_word()
        self.is_target = True

    def end_command(self) -> None:
        self.end_word()
        self.is_target = False
        if self.words:
            self.scan.commands.append(self.words)
            self.words = []


def _index(text: str, wanted: str, start: int) -> int:
    found = text.find(wanted, start)
    return len(text) if found < 0 else found
