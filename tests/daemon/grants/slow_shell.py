"""Shell text read letter by letter: what the quick reading of it has to agree with.

Plain and slow on purpose: each letter is looked at by itself, and nothing is left out for speed.
"""

import unicodedata
from dataclasses import dataclass, field

from moorage_daemon.grants.doubts import (
    is_plain_backtick,
    is_plain_dollar,
    is_plain_redirect,
    is_run_later,
)
from moorage_daemon.grants.shell import MAX_COMMAND, MAX_NESTING, RESERVED, Found, Word


_META = frozenset(";&|<>()$`\\{}*?[]~#!^")  # outside of quotes these are more than themselves
_IN_DOUBLE_QUOTES = frozenset('$`\\!"')
_LEADING = RESERVED - {"coproc", "function"}  # behind which a command follows
_SEPARATORS = frozenset(";&|()\n\r")


def plain_words(command: str) -> tuple[str, ...] | None:
    """The words of a command that every shell reads alike; None if it is anything more."""
    if len(command) > MAX_COMMAND or any(map(_is_hidden, command)):
        return None
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(command):
        letter = command[at]
        if letter == " ":
            words += [] if word is None else [word]
            word, at = None, at + 1
        elif letter in "'\"":
            end = command.find(letter, at + 1)
            quoted = command[at + 1 : end]
            if end < 0 or (letter == '"' and not _IN_DOUBLE_QUOTES.isdisjoint(quoted)):
                return None
            word, at = (word or "") + quoted, end + 1
        elif letter in _META:
            return None
        else:
            word, at = (word or "") + letter, at + 1
    words += [] if word is None else [word]
    if not words or words[0] in RESERVED or "=" in words[0]:
        return None
    is_later = any(is_run_later(word, is_assigned=False) for word in words)
    return None if is_later else tuple(words)


def _is_hidden(letter: str) -> bool:
    """Whether it is not seen, or is a space that is none: nobody approves what they cannot see."""
    return letter != " " and unicodedata.category(letter)[0] in "CZ"


def commands_in(text: str) -> Found:
    """Every command in a shell text, in substitutions and subshells too."""
    if len(text) > MAX_COMMAND:
        return Found((), is_certain=False)
    scan = _Scan(text)
    scan.read_all()
    commands = [_without_lead(words) for words in scan.commands]
    assigned = [word.text for words in scan.commands for word in words if _is_assignment(word.text)]
    texts = [(word.text, False) for words in commands for word in words]
    texts += [(text, True) for text in assigned]
    is_later = any(is_run_later(text, is_assigned=is_assigned) for text, is_assigned in texts)
    is_certain = scan.is_certain and not is_later
    return Found(tuple(words for words in commands if words), is_certain, tuple(assigned))


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
                self.at += 1
                reader.add(letter)
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
