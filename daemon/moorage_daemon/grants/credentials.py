"""Secrets by reference: `${CRED:name}` in a call's arguments.

An agent writes the name and never learns the secret. The reference is what is shown, asked about
and recorded; it is filled in when the call starts, and whatever a call brings back is searched
for the secret and told with the reference in its place.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage_daemon.scrubbing import Scrubber


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Behind these it takes a shell to tell which quotation marks are open.
_UNCLEAR = re.compile(r"`|\$'|<<(?!<)|\$\{(?!\w+\})|\bcase\b")
# What another shell reads as a text once more.
_READ_AGAIN = re.compile(r"\beval\b|\b(?:ba|da|fi|mk|tc|ya|[ackz])?sh['\"]?\s+(?:-\S+\s+)*-\w*c\b")
_REFERENCE = re.compile(r"\$\{CRED:([A-Za-z0-9][A-Za-z0-9._-]{0,63})\}")


class UnclearPlace(ValueError):
    """A credential stands in a command where nobody can tell how it would be read."""


def is_name(text: str) -> bool:
    """Whether a credential can have that name."""
    return _NAME.fullmatch(text) is not None


def reference(name: str) -> str:
    """How an agent refers to a credential."""
    return f"${{CRED:{name}}}"


def scrubber_of(secrets: Mapping[str, str]) -> Scrubber:
    """What tells their references where secrets stand; `secrets` are by name."""
    return Scrubber({secret: reference(name) for name, secret in secrets.items()})


def references(text: str) -> tuple[str, ...]:
    """The names that a text refers to, each once."""
    return tuple(dict.fromkeys(_REFERENCE.findall(text)))


def filled(text: str, secrets: Mapping[str, str]) -> str:
    """The text with its references filled in; one that is not among `secrets` stays."""
    return _REFERENCE.sub(lambda found: secrets.get(found[1], found[0]), text)


def filled_for_shell(command: str, secrets: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A shell command with variables in place of its references, and those variables.

    The secret stands in no argument of the shell, and nothing in it is read as shell text: it is
    quoted here, whatever quotes the reference stands in. Raises `UnclearPlace` where these are not
    known, or where another shell reads it again.
    """
    pieces: list[str] = []
    variables: dict[str, str] = {}
    at, quotes = 0, _Quotes()
    again = _READ_AGAIN.search(command)
    for found in _REFERENCE.finditer(command):
        quotes.read(command[at : found.start()])
        pieces.append(command[at : found.start()])
        at = found.end()
        if found[1] not in secrets:
            pieces.append(found[0])
            continue
        if not quotes.is_sure or (again is not None and again.start() < found.start()):
            raise UnclearPlace
        variable = f"MOORAGE_CRED_{found[1].encode().hex().upper()}"
        variables[variable] = secrets[found[1]]
        pieces.append(_expansion(variable, quotes.open[-1]))
    return "".join([*pieces, command[at:]]), variables


def _expansion(variable: str, quote_mark: str) -> str:
    match quote_mark:
        case '"':
            return f"${{{variable}}}"
        case "'":
            return f"'\"${{{variable}}}\"'"
        case _:
            return f'"${{{variable}}}"'


@dataclass
class _Quotes:
    """Which quotation marks are open where, innermost last, "" for none; in substitutions too."""

    open: list[str] = field(default_factory=lambda: [""])
    is_sure: bool = True
    _brackets: list[int] = field(default_factory=lambda: [0])
    _is_after_word: bool = False

    def read(self, text: str) -> None:
        """A piece of shell text, behind which a reference stands or the end."""
        at = 0
        while at < len(text):
            mark = self.open[-1]
            if mark == "#":
                end = text.find("\n", at)
                at = len(text) if end < 0 else end
                if end >= 0:
                    self.open.pop()
            elif mark == "'":
                at += self._quote(text[at], mark)
            elif text[at] == "\\":
                at += 2
                self._is_after_word = True
            else:
                at += self._letter(text, at, mark)
        self._is_after_word = True

    def _letter(self, text: str, at: int, mark: str) -> int:
        """Read what stands there; how long it is."""
        letter = text[at]
        if text.startswith("$(", at):
            self._enter()
            return 2
        if _UNCLEAR.match(text, at) and not (mark and text[at : at + 2] in {"$'", "<<"}):
            self.is_sure = False
        if letter == '"':
            return self._quote(letter, mark)
        if not mark:
            self._bare(letter)
            if text.startswith("<<<", at):
                return 3
        return 1

    def _quote(self, letter: str, mark: str) -> int:
        self._is_after_word = True
        if letter == mark:
            self.open.pop()
        elif mark != "'":
            self.open.append(letter)
        return 1

    def _bare(self, letter: str) -> None:
        if letter == "'" or (letter == "#" and not self._is_after_word):
            self.open.append(letter)
        elif letter == "(":
            self._brackets[-1] += 1
        elif letter == ")" and self._brackets[-1]:
            self._brackets[-1] -= 1
        elif letter == ")" and len(self._brackets) > 1:
            self._brackets.pop()
            self.open.pop()
        self._is_after_word = letter not in " \t\n;&|()<>"

    def _enter(self) -> None:
        self.open.append("")
        self._brackets.append(0)
        self._is_after_word = False
